"""The composites of the domain `onnxplain`, whose functions `check_vjp` gives the model."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxplain.export import VJPS, pull_back
from onnxplain.export.check import Case, add_output, add_seeds, builder_of, finished
from onnxplain.export.composites import COMPOSITES, without_gradient

from .check import check_vjp, cotangent_of, distinct, drawn, runtime

seeds = st.integers(0, 999).map(np.random.default_rng)


@st.composite
def inputs(draw: st.DrawFn, least: int = 1, spread: float = 2.0) -> np.ndarray:
    shape = draw(st.lists(st.integers(1, 4), min_size=least, max_size=4))
    return draw(seeds).normal(size=shape) * spread


@st.composite
def swishes(draw: st.DrawFn) -> Case:
    alpha = draw(st.sampled_from([1.0, 1.702, 0.25]))
    return Case("onnxplain::Swish", [draw(inputs())], {"alpha": alpha})


@st.composite
def rms_normalizations(draw: st.DrawFn) -> Case:
    """Over one or several trailing axes, of two elements at least: one alone has no slope."""
    shape = draw(st.lists(st.integers(2, 4), min_size=2, max_size=4))
    axis, rng = -draw(st.integers(1, len(shape) - 1)), draw(seeds)
    epsilon = draw(st.sampled_from([1e-6, 0.5]))
    values = [rng.normal(size=shape), rng.normal(size=shape[axis:])]
    return Case(
        "onnxplain::RMSNormalization",
        values,
        {"axis": axis, "epsilon": epsilon},
        active=draw(st.sampled_from([(0,), (0, 1)])),
    )


@st.composite
def l2_normalizations(draw: st.DrawFn) -> Case:
    """Norms on either side of ε, none near it."""
    x = draw(inputs(2))
    norm = np.sqrt((x**2).sum(-1, keepdims=True))
    x = x / norm * draw(seeds).choice([0.5, 2.0], size=norm.shape)
    return Case("onnxplain::L2Normalization", [x], {"axes": [-1], "epsilon": 1.0})


@st.composite
def response_normalizations(draw: st.DrawFn) -> Case:
    """Channels last with γ [C], and first with γ [C, 1, 1]; away from 0, where one pixel's norm
    has a kink."""
    n, h, w, c = (draw(st.integers(1, 3)) for _ in range(4))
    rng, last = draw(seeds), draw(st.booleans())
    shape = [n, h, w, c + 1] if last else [n, c + 1, h, w]
    affine = [c + 1] if last else [c + 1, 1, 1]
    axes = {"axis": -1, "axes": [-3, -2]} if last else {"axis": -3, "axes": [-2, -1]}
    x = rng.uniform(0.5, 2, size=shape) * rng.choice([-1, 1], size=shape)
    return Case(
        "onnxplain::GlobalResponseNormalization",
        [x, rng.normal(size=affine), rng.normal(size=affine)],
        axes | {"epsilon": draw(st.sampled_from([1e-6, 0.25]))},
        active=draw(st.sampled_from([(0,), (0, 1, 2)])),
    )


@st.composite
def attention_weights(draw: st.DrawFn) -> Case:
    x = draw(inputs())
    return Case("onnxplain::AttentionWeights", [x], {"axis": -draw(st.integers(1, x.ndim))})


@st.composite
def hard_sigmoid_gates(draw: st.DrawFn) -> Case:
    x = distinct(draw(seeds), draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)), 4.1)
    return Case("onnxplain::HardSigmoidGate", [x], {"alpha": 1 / 6, "beta": 0.5})


CASES = {
    "onnxplain::Swish": swishes(),
    "onnxplain::RMSNormalization": rms_normalizations(),
    "onnxplain::L2Normalization": l2_normalizations(),
    "onnxplain::GlobalResponseNormalization": response_normalizations(),
    "onnxplain::AttentionWeights": attention_weights(),
    "onnxplain::SigmoidGate": inputs().map(lambda x: Case("onnxplain::SigmoidGate", [x])),
    "onnxplain::HardSigmoidGate": hard_sigmoid_gates(),
}
COVERED = {*CASES, "onnxplain::DynamicScale", "onnxplain::DynamicSteps", "onnxplain::StopGradient"}


@pytest.mark.parametrize("operator", CASES)
@drawn(12)
@given(data=st.data())
def test_the_rule_is_the_transposed_jacobian(operator: str, data: st.DataObject):
    check_vjp(data.draw(CASES[operator]))


def test_no_gradient_flows_through_a_stop():
    """x · stop(x) has the gradient g · x, not 2 g · x."""
    x = np.random.default_rng(0).normal(size=[2, 3])
    case = Case("Identity", [x])
    model = case.forward_model()
    op = builder_of(model)
    (image,) = model.graph.inputs
    y = op.Mul(image, without_gradient(op, image))
    (g,) = pull_back(op, {y: op.Identity(image)}, [image], VJPS)
    add_output(model, g, "g")
    found = runtime(finished(model), {"x0": x})[-1]
    np.testing.assert_allclose(found, x * x)


@pytest.mark.parametrize("shift", [0.0, 3.0, -3.0])
def test_dynamic_steps_round_and_are_passed_straight_through(shift: float):
    """They round as ONNX Runtime's own operator does, to the bit."""
    case = Case("onnxplain::DynamicSteps", [np.zeros([3, 5])])
    x = (np.random.default_rng(0).normal(size=[3, 5]) + shift).astype(np.float32)
    own = onnx.parser.parse_model("""<ir_version: 9, opset_import: ["": 20]>
        own (float[3, 5] x0) => (float[3, 5] y, float s)
        { q, s, z = DynamicQuantizeLinear(x0)
          one = Constant<value_float = 1.0>()
          y = DequantizeLinear(q, one, z) }""")
    steps, scale = runtime(own, {"x0": x})
    for operator, expected in (("DynamicSteps", steps), ("DynamicScale", scale)):
        model = Case(f"onnxplain::{operator}", case.inputs).forward_model(ir.DataType.FLOAT)
        np.testing.assert_array_equal(runtime(finished(model), {"x0": x})[0], expected)
    g = np.random.default_rng(1).normal(size=x.shape)
    np.testing.assert_allclose(cotangent_of(Case(case.op, [x.astype(float)]), g), g / scale, 1e-6)


def test_every_composite_has_a_rule():
    assert {f"onnxplain::{name}" for name in COMPOSITES} == COVERED


def test_a_silent_channel_has_a_response_norm_without_slope():
    """‖x‖ has none at 0: PyTorch takes 0 for it."""
    x = np.random.default_rng(0).normal(size=[1, 2, 2, 3])
    x[..., 1] = 0
    gamma, beta = np.array([1.0, 2.0, 3.0]), np.zeros(3)
    attributes = {"axis": -1, "axes": [-3, -2], "epsilon": 1e-6}
    case = Case("onnxplain::GlobalResponseNormalization", [x, gamma, beta], attributes)
    g = np.random.default_rng(1).normal(size=x.shape)
    np.testing.assert_allclose(cotangent_of(case, g)[..., 1], g[..., 1])  # 1 + γ · 0


@pytest.mark.parametrize(
    ("case", "operators"),
    [
        (Case("onnxplain::Swish", [np.ones([2, 3])], {"alpha": 1.0}), {"Sigmoid": 1}),
        (Case("onnxplain::Swish", [np.ones([2, 3])], {"alpha": 1.702}), {"Sigmoid": 1}),
        (
            Case(
                "onnxplain::RMSNormalization",
                [np.ones([2, 3]), np.ones(3)],
                {"axis": -1, "epsilon": 1e-6},
            ),
            {"Sqrt": 1, "ReduceMean": 2},
        ),
        (
            Case(
                "onnxplain::GlobalResponseNormalization",
                [np.ones([2, 3, 3, 2]), np.ones(2), np.ones(2)],
                {"axis": -1, "axes": [-3, -2], "epsilon": 1e-6},
            ),
            {"ReduceL2": 1},
        ),
    ],
    ids=["silu", "swish", "rms", "grn"],
)
def test_backward_shares_what_forward_computes(case: Case, operators: dict[str, int]):
    model = case.forward_model()
    x = model.graph.inputs[0]
    (cotangent,) = pull_back(builder_of(model), add_seeds(model, [0]), [x], VJPS)
    add_output(model, cotangent, "cotangent", like=x)
    nodes = [node.op_type for node in finished(model).graph.node]
    assert {name: nodes.count(name) for name in operators} == operators
