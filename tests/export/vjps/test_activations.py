"""Activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from onnxplain.export import VJPS, pull_back
from onnxplain.export.check import Case, builder_of, finished, forward_model
from onnxplain.reference.float64 import evaluate

from .check import check_vjp, cotangent_of, distinct, drawn

seeds = st.integers(0, 999).map(np.random.default_rng)
shapes = st.lists(st.integers(1, 4), min_size=1, max_size=4)
SLOPES = [0.125, 0.5, 1.5]


@st.composite
def of_one(
    draw: st.DrawFn,
    op: str,
    attribute: str | None = None,
    among: Sequence[Any] = SLOPES,
    **more: Any,
) -> Case:
    attributes = {}
    if attribute and draw(st.booleans()):
        attributes[attribute] = draw(st.sampled_from(among))
    return Case(op, [distinct(draw(seeds), draw(shapes), 5.3)], attributes, **more)


@st.composite
def shrinks(draw: st.DrawFn) -> Case:
    attributes = draw(st.sampled_from([{}, {"lambd": 1.26}, {"lambd": 0.51, "bias": 0.25}]))
    return Case("Shrink", [distinct(draw(seeds), draw(shapes), 5.3)], attributes)


@st.composite
def prelus(draw: st.DrawFn) -> Case:
    """The slope is broadcast to x."""
    rng, shape = draw(seeds), draw(shapes)
    tail = shape[draw(st.integers(0, len(shape))) :]
    slope = [size if draw(st.booleans()) else 1 for size in tail]
    dynamic = [] if len(slope) == len(shape) and slope[0] > 1 else [0]
    return Case("PRelu", [distinct(rng, shape), rng.normal(size=slope)], {}, dynamic=dynamic)


@st.composite
def clips(draw: st.DrawFn) -> Case:
    low = draw(st.sampled_from([None, np.array(-1.01), np.array(0.0)]))
    high = draw(st.sampled_from([None, np.array(1.02), np.array(6.0)]))
    return Case("Clip", [distinct(draw(seeds), draw(shapes), 8.0), low, high])


@st.composite
def softmaxes(draw: st.DrawFn, op: str) -> Case:
    shape = draw(shapes)
    axis = draw(st.sampled_from([None, *range(-len(shape), len(shape))]))
    x = draw(seeds).normal(size=shape) * draw(st.sampled_from([1.0, 5.0]))
    return Case(op, [x], {} if axis is None else {"axis": axis})


CASES = {
    **{op: of_one(op) for op in ("Relu", "Sigmoid", "Tanh", "Softplus", "Softsign", "HardSwish")},
    **{
        op: of_one(op, "alpha")
        for op in ("LeakyRelu", "ThresholdedRelu", "Elu", "Selu", "HardSigmoid")
    },
    "Mish": of_one("Mish"),
    "Gelu": of_one("Gelu") | of_one("Gelu", "approximate", ["none", "tanh"]),
    "Swish": of_one("Swish", "alpha", opset=24),
    "Shrink": shrinks(),
    "PRelu": prelus(),
    "Clip": clips(),
    "Softmax": softmaxes("Softmax"),
    "LogSoftmax": softmaxes("LogSoftmax"),
}


COVERED = {*CASES, "Celu", "Hardmax"}


@pytest.mark.parametrize("operator", CASES)
@drawn(12)
@given(data=st.data())
def test_the_rule_is_the_transposed_jacobian(operator: str, data: st.DataObject):
    check_vjp(data.draw(CASES[operator]))


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_agrees_with_torch_autograd(approximate: str):
    x = distinct(np.random.default_rng(0), [2, 3, 4], 9.0)
    leaf = torch.tensor(x, requires_grad=True)
    torch.nn.functional.gelu(leaf, approximate=approximate).sum().backward()
    found = cotangent_of(Case("Gelu", [x], {"approximate": approximate}), np.ones_like(x))
    np.testing.assert_allclose(found, leaf.grad, atol=1e-12)


@pytest.mark.parametrize("operator", ["Gelu", "Mish", "Swish"])
def test_far_from_zero_a_smooth_gate_is_open_or_closed_and_never_nan(operator: str):
    case = Case(operator, [np.array([[-1e4, -90.0, 90.0, 1e4]])], opset=24)
    np.testing.assert_allclose(cotangent_of(case, np.ones([1, 4])), [[0, 0, 1, 1]], atol=1e-12)


def test_the_winner_of_a_hardmax_passes_no_cotangent():
    """y = x · hardmax(x): all that arrives comes through the other factor."""
    x = distinct(np.random.default_rng(0), [2, 3])
    model = forward_model(lambda op, x: [op.Mul(x, op.Hardmax(x))], [[2, 3]])
    op = builder_of(model)
    (y,) = model.graph.outputs
    seed = op.builder.input("g", y.dtype, y.shape)
    (found,) = pull_back(op, {y: seed}, model.graph.inputs[:1], VJPS)
    model.graph.outputs[:] = [found]
    (result,) = evaluate(finished(model), {"x0": x, "g": np.ones([2, 3])})
    np.testing.assert_array_equal(result, x == x.max(-1, keepdims=True))


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_celu_which_has_no_float64_agrees_with_torch_autograd(alpha: float):
    x = distinct(np.random.default_rng(0), [2, 3, 4]).astype(np.float32)
    leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    torch.celu(leaf, alpha).sum().backward()
    found = cotangent_of(Case("Celu", [x], {"alpha": alpha}), np.ones_like(x))
    np.testing.assert_allclose(found, leaf.grad, rtol=1e-5)


@pytest.mark.parametrize(
    ("operator", "attributes", "x", "slope"),
    [
        ("Relu", {}, 0.0, 0.0),
        ("LeakyRelu", {"alpha": 0.25}, 0.0, 0.25),
        ("ThresholdedRelu", {"alpha": 0.5}, 0.5, 0.0),
        ("Elu", {"alpha": 0.5}, 0.0, 0.5),
        ("HardSwish", {}, 3.0, 1.0),
        ("HardSwish", {}, -3.0, 0.0),
        ("HardSigmoid", {"alpha": 1 / 6}, 3.0, 0.0),
    ],
)
def test_at_a_kink_the_cotangent_is_pytorchs(operator, attributes, x, slope):
    case = Case(operator, [np.array([x])], attributes)
    assert cotangent_of(case, np.ones(1)) == pytest.approx(slope)


@pytest.mark.parametrize("x", [0.0, 6.0])
def test_a_clip_lets_nothing_through_at_its_bounds(x: float):
    """As `torch.nn.ReLU6`; `torch.clamp` would let it through."""
    case = Case("Clip", [np.array([x]), np.array(0.0), np.array(6.0)])
    assert cotangent_of(case, np.ones(1)) == 0.0


def test_a_saturated_sigmoid_has_no_slope_left_and_no_nan():
    (found,) = check_vjp(Case("Sigmoid", [np.array([[-800.0, 800.0]])]), float32=False)
    assert not found.any()


def test_a_slope_may_depend_on_the_image():
    rng = np.random.default_rng(0)
    inputs = [distinct(rng, [2, 3, 4]), rng.normal(size=[3, 1])]
    check_vjp(Case("PRelu", inputs, active=[0, 1]))


@pytest.mark.parametrize("bounds", [(-0.7, 0.9), (0.4, -0.3)])
def test_the_bounds_of_a_clip_may_depend_on_the_image(bounds):
    """Where they cross, all is the upper one."""
    x = distinct(np.random.default_rng(0), [2, 3, 4])
    inputs = [x, *map(np.array, bounds)]
    check_vjp(Case("Clip", inputs, active=[0, 1, 2]), float32=False)
