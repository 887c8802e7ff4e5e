"""The fused operations' bodies in standard operators, against their formulas written out."""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from onnxplain.export.check import Case, add_output, builder_of, finished, forward_model
from onnxplain.export.windows import window_of
from onnxplain.kernels.bodies import soft_gate, soft_max_pool_grad, weighted_pool_grad
from onnxplain.reference.float64 import evaluate
from onnxplain.reference.float64_operators import pool_geometry

from ..export.vjps.check import distinct, drawn, runtime
from ..export.vjps.test_pooling import pools


def expected_gradient(
    x: np.ndarray, g: np.ndarray, attributes: dict, T: float, held: bool = False
) -> np.ndarray:
    """autograd of s = Σ w x, w = softmax(x / T), window by window; outside x there are zeros.

    `held`: w is constant.
    """
    names = ("strides", "dilations", "pads", "auto_pad", "ceil_mode")
    kernel = attributes["kernel_shape"]
    strides, dilations, around, out = pool_geometry(
        x.shape[2:], kernel, **{name: attributes.get(name) for name in names}
    )
    leaf = torch.tensor(x, requires_grad=True)
    total = torch.zeros([], dtype=leaf.dtype)
    for at in itertools.product(*map(range, out)):
        values = []
        for k in itertools.product(*map(range, kernel)):
            where = [
                i * s + j * d - b
                for i, s, j, d, (b, _) in zip(at, strides, k, dilations, around, strict=True)
            ]
            inside = all(0 <= i < n for i, n in zip(where, x.shape[2:], strict=True))
            outside = torch.zeros(x.shape[:2], dtype=leaf.dtype)
            values.append(leaf[(..., *where)] if inside else outside)
        window = torch.stack(values)
        weights = torch.softmax(window / T, 0)
        s = ((weights.detach() if held else weights) * window).sum(0)
        total = total + (s * torch.tensor(g[(..., *at)])).sum()
    total.backward()
    return leaf.grad.numpy()


def pool_model(
    case: Case,
    T: float | None,
    dtype: ir.DataType = ir.DataType.DOUBLE,
    pool_grad=soft_max_pool_grad,
):
    """Inputs x0, g and, for T of None, T; the pull-back out."""
    model = case.forward_model(dtype)
    graph, op = model.graph, builder_of(model)
    (x,), (y,) = graph.inputs, graph.outputs
    g = op.builder.input("g", dtype, y.shape)
    temperature = op.builder.input("T", dtype, []) if T is None else T
    found = pool_grad(op, x, g, window_of(y.producer(), x, y), temperature)
    graph.outputs[:] = []
    add_output(model, found, "pullback", like=x)
    return finished(model)


def cotangent_for(case: Case) -> np.ndarray:
    (y,) = evaluate(finished(case.forward_model()), {"x0": case.inputs[0]})
    return np.random.default_rng(0).normal(size=y.shape)


@drawn(40)
@given(pools("MaxPool"), st.sampled_from([0.3, 1.0, 5.0]))
def test_the_soft_max_pool_is_the_gradient_of_the_softmax_weighted_pool(case: Case, T: float):
    (x,), g = case.inputs, cotangent_for(case)
    (found,) = evaluate(pool_model(case, T), {"x0": x, "g": g})
    np.testing.assert_allclose(found, expected_gradient(x, g, case.attributes, T), atol=1e-10)


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("kernel", [[3], [2, 2], [2, 3], [1, 2, 2]])
def test_windows_that_tile_are_not_taken_apart(kernel: list[int], held: bool):
    x = distinct(np.random.default_rng(2), [2, 3, *(3 * k for k in kernel)], 10.0)
    attributes = {"kernel_shape": kernel, "strides": kernel}
    case = Case("MaxPool", [x], attributes)
    g = cotangent_for(case)
    pool_grad = weighted_pool_grad if held else soft_max_pool_grad
    model = pool_model(case, 0.3, pool_grad=pool_grad)
    assert not {"Slice", "DepthToSpace"} & {node.op_type for node in model.graph.node}
    (found,) = evaluate(model, {"x0": x, "g": g})
    expected = expected_gradient(x, g, attributes, 0.3, held)
    np.testing.assert_allclose(found, expected, atol=1e-10)


def test_it_goes_through_the_weights_too():
    """∂s/∂x_i = w_i (1 + (x_i − s) / T)."""
    x, T = np.array([0.1, 0.5, -0.2]), 0.3
    w = np.exp(x / T) / np.exp(x / T).sum()
    s = (w * x).sum()
    case = Case("MaxPool", [x.reshape(1, 1, 3)], {"kernel_shape": [3]})
    (found,) = evaluate(pool_model(case, T), {"x0": case.inputs[0], "g": np.ones([1, 1, 1])})
    np.testing.assert_allclose(found.ravel(), w * (1 + (x - s) / T), rtol=1e-12)
    assert found.min() < 0  # what is well below the weighted mean pulls it down


def test_padding_takes_part_with_the_value_zero():
    """One window over [0 x]: all the weight is the padding's when x is far below zero."""
    attributes = {"kernel_shape": [2], "pads": [1, 0]}
    case = Case("MaxPool", [np.full([1, 1, 1], -50.0)], attributes)
    (found,) = evaluate(pool_model(case, 0.3), {"x0": case.inputs[0], "g": np.ones([1, 1, 1])})
    assert abs(found.item()) < 1e-50


def test_what_a_ceil_mode_window_hangs_over_takes_part_with_zero_too():
    x = np.array([1.0, 2.0, -50.0]).reshape(1, 1, 3)
    case = Case("MaxPool", [x], {"kernel_shape": [2], "strides": [2], "ceil_mode": 1})
    (found,) = evaluate(pool_model(case, 0.3), {"x0": x, "g": np.ones([1, 1, 2])})
    assert abs(found[0, 0, 2]) < 1e-50


@pytest.mark.parametrize("scale", [1e2, 1e4])
def test_large_numbers_of_either_sign_neither_overflow_nor_lose_the_maximum(scale: float):
    x = distinct(np.random.default_rng(1), [2, 2, 6, 7], scale)
    attributes = {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]}
    case = Case("MaxPool", [x], attributes)
    g = cotangent_for(case)
    expected = expected_gradient(x, g, attributes, 0.3)
    (found,) = evaluate(pool_model(case, 0.3), {"x0": x, "g": g})
    np.testing.assert_allclose(found, expected, atol=1e-9)
    feeds = {"x0": x.astype(np.float32), "g": g.astype(np.float32)}
    (single,) = runtime(pool_model(case, 0.3, ir.DataType.FLOAT), feeds)
    np.testing.assert_allclose(single, expected, atol=1e-3)


@pytest.mark.parametrize("T", [0.1, 0.3, 2.0])
def test_the_temperature_can_be_an_input_of_the_graph(T: float):
    x = distinct(np.random.default_rng(1), [2, 1, 4, 4])
    case = Case("MaxPool", [x], {"kernel_shape": [2, 2]})
    g = cotangent_for(case)
    (live,) = evaluate(pool_model(case, None), {"x0": x, "g": g, "T": np.array(T)})
    (fixed,) = evaluate(pool_model(case, T), {"x0": x, "g": g})
    np.testing.assert_allclose(live, fixed, rtol=1e-12, atol=1e-15)


def gate(z: np.ndarray, g: np.ndarray, T: float, live: bool) -> np.ndarray:
    def build(op, z, g, *temperature):
        return [soft_gate(op, z, g, temperature[0] if live else T)]

    feeds = {"x0": z, "x1": g} | ({"x2": np.array(T)} if live else {})
    shapes = [["batch", *z.shape[1:]]] * 2 + ([[]] if live else [])
    return evaluate(finished(forward_model(build, shapes)), feeds)[0]


@pytest.mark.parametrize("live", [False, True], ids=["fixed", "live"])
@pytest.mark.parametrize("T", [0.3, 1.0, 4.0])
def test_the_soft_gate_is_g_times_the_logistic_function_of_z_over_temperature(T: float, live: bool):
    z, g = np.random.default_rng(0).normal(size=[2, 3, 4, 5])
    np.testing.assert_allclose(gate(z, g, T, live), g / (1 + np.exp(-z / T)), rtol=1e-12)


def test_the_soft_gate_counts_negative_preactivations():
    z, g = np.array([[-0.1, -1.0]]), np.array([[1.0, 1.0]])
    assert (gate(z, g, 0.3, live=False) > 0).all()


def test_the_soft_gate_of_large_numbers_is_open_or_shut():
    z, g = np.array([[-1e4, 1e4]]), np.array([[3.0, 3.0]])
    assert gate(z, g, 0.3, live=False).tolist() == [[0, 3]]
