"""Normalisations, in inference mode."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnxscript import GraphBuilder
from torch.nn import functional

from onnxplain.export import VJPS
from onnxplain.export.check import Case
from onnxplain.reference.float64 import evaluate

from .check import check_vjp, cotangent_of, distinct, drawn

seeds = st.integers(0, 999).map(np.random.default_rng)


@st.composite
def batch_normalisations(draw: st.DrawFn) -> Case:
    rng = draw(seeds)
    shape = draw(st.lists(st.integers(1, 4), min_size=2, max_size=5))
    scale, bias, mean, variance = rng.normal(size=[4, shape[1]])
    attributes = draw(st.sampled_from([{}, {"epsilon": 0.125}]))
    inputs = [rng.normal(size=shape), scale, bias, mean, variance**2 + 0.01]
    return Case("BatchNormalization", inputs, attributes)


@st.composite
def local_responses(draw: st.DrawFn) -> Case:
    """Windows larger than the channels too, and of an even size, which lean to one side."""
    shape = [draw(st.integers(1, n)) for n in (2, 6, 3, 2)]
    attributes = {"size": draw(st.integers(1, 7))}
    if draw(st.booleans()):
        attributes |= {"alpha": 0.75, "beta": draw(st.sampled_from([0.5, 1.5])), "bias": 2.0}
    return Case("LRN", [draw(seeds).normal(size=shape) * 3], attributes)


@st.composite
def layer_normalisations(draw: st.DrawFn) -> Case:
    """From any axis on, with a scale and bias that depend on the image too."""
    rng = draw(seeds)
    shape = [
        draw(st.integers(1, 3)),
        *(draw(st.integers(2, 5)) for _ in range(draw(st.integers(1, 3)))),
    ]
    axis = draw(st.sampled_from([None, *range(-len(shape) + 1, 0), *range(1, len(shape))]))
    own = shape[-1 if axis is None else axis :]
    attributes = {} if axis is None else {"axis": axis}
    if draw(st.booleans()):
        attributes["epsilon"] = 0.125
    inputs = [rng.normal(size=shape) * 2 + 1, rng.normal(size=own)]
    if draw(st.booleans()):
        inputs.append(rng.normal(size=own))
    active = draw(st.sampled_from([[0], list(range(len(inputs)))]))
    dynamic = [0] if len(own) < len(shape) else []
    return Case("LayerNormalization", inputs, attributes, active, dynamic)


@st.composite
def instance_normalisations(draw: st.DrawFn) -> Case:
    rng = draw(seeds)
    channels = draw(st.integers(1, 3)) * draw(st.integers(1, 2))
    spatial = draw(st.lists(st.integers(2, 4), min_size=1, max_size=3))
    x = rng.normal(size=[draw(st.integers(1, 2)), channels, *spatial]) * 2 + 1
    attributes = draw(st.sampled_from([{}, {"epsilon": 0.125}]))
    inputs = [x, rng.normal(size=channels), rng.normal(size=channels)]
    return Case("InstanceNormalization", inputs, attributes)


@st.composite
def unit_norms(draw: st.DrawFn) -> Case:
    x = distinct(draw(seeds), draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    attributes = {"axis": draw(st.integers(-x.ndim, x.ndim - 1)), "p": draw(st.integers(1, 2))}
    return Case("LpNormalization", [x], attributes)


CASES = {
    "BatchNormalization": batch_normalisations(),
    "LayerNormalization": layer_normalisations(),
    "InstanceNormalization": instance_normalisations(),
    "LpNormalization": unit_norms(),
    "LRN": local_responses(),
}
COVERED = {*CASES, "MeanVarianceNormalization"}


@pytest.mark.parametrize("operator", CASES)
@drawn(15)
@given(data=st.data())
def test_the_rule_is_the_transposed_jacobian(operator: str, data: st.DataObject):
    case = data.draw(CASES[operator])
    # ONNX Runtime wants a window to have a middle.
    check_vjp(case, float32=case.attributes.get("size", 1) % 2 == 1)


def test_local_response_normalisation_agrees_with_torch_autograd():
    x = np.random.default_rng(1).normal(size=[2, 8, 3, 3]) * 4
    leaf = torch.tensor(x, requires_grad=True)
    y = functional.local_response_norm(leaf, 5, alpha=0.5, beta=0.75, k=2.0)
    y.backward(torch.tensor(np.random.default_rng(0).normal(size=x.shape)))
    attributes = {"size": 5, "alpha": 0.5, "beta": 0.75, "bias": 2.0}
    (found,) = check_vjp(Case("LRN", [x], attributes))
    np.testing.assert_allclose(found, leaf.grad, atol=1e-9)


@pytest.mark.parametrize("operator", ["LayerNormalization", "onnxplain::RMSNormalization"])
def test_normalisation_agrees_with_torch_autograd(operator: str):
    rng = np.random.default_rng(1)
    x, scale = rng.normal(size=[2, 3, 8]) + 3, rng.normal(size=8)
    leaf = torch.tensor(x, requires_grad=True)
    if operator == "LayerNormalization":
        y = functional.layer_norm(leaf, [8], torch.tensor(scale), eps=1e-5)
    else:
        y = functional.rms_norm(leaf, [8], torch.tensor(scale), eps=1e-5)
    g = rng.normal(size=x.shape)
    y.backward(torch.tensor(g))
    case = Case(operator, [x, scale], {"axis": -1, "epsilon": 1e-5})
    np.testing.assert_allclose(cotangent_of(case, g), leaf.grad, atol=1e-7)


@pytest.mark.parametrize("axes", [None, [1, 2, 3], [-1], [-3]])
def test_mean_variance_normalisation_agrees_with_torch_autograd(axes: list[int] | None):
    """`onnx.checker` refuses the operator in any graph, so there is no `check_vjp` of it."""
    x = np.random.default_rng(1).normal(size=[2, 3, 4, 5]) * 2 + 1
    op = GraphBuilder(ir.Graph([], [], nodes=[], opset_imports={"": 20}, name="test")).op
    image, g = (op.builder.input(name, ir.DataType.DOUBLE, x.shape) for name in "xg")
    attributes = {} if axes is None else {"axes": axes}
    node = ir.node("MeanVarianceNormalization", [image], attributes)
    (gx,) = [VJPS["MeanVarianceNormalization"](op, node, g)]
    graph = op.builder.graph
    graph.outputs.append(gx)
    model = ir.to_proto(ir.Model(graph, ir_version=10))
    given = np.random.default_rng(0).normal(size=x.shape)
    (found,) = evaluate(model, {"x": x, "g": given})
    leaf, over = torch.tensor(x, requires_grad=True), axes or [0, 2, 3]
    y = (leaf - leaf.mean(over, True)) / (leaf.std(over, correction=0, keepdim=True) + 1e-9)
    y.backward(torch.tensor(given))
    np.testing.assert_allclose(found, leaf.grad, atol=1e-7)


@pytest.mark.parametrize("p", [1, 2])
def test_the_direction_of_nothing_has_no_slope(p: int):
    case = Case("LpNormalization", [np.zeros([1, 3])], {"p": p})
    assert cotangent_of(case, np.ones([1, 3])).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("operator", ["BatchNormalization", "InstanceNormalization"])
def test_scale_bias_and_statistics_may_depend_on_the_image(operator):
    """As in AdaIN."""
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=[2, 3, 4, 5]), *rng.uniform(0.5, 2, size=[4, 3])]
    inputs = inputs if operator == "BatchNormalization" else inputs[:3]
    check_vjp(Case(operator, inputs, active=list(range(len(inputs)))))
