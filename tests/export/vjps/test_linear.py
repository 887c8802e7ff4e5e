"""Matrix products and convolutions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from onnxplain.export.check import Case

from .check import check_vjp, drawn

seeds = st.integers(0, 999).map(np.random.default_rng)


@st.composite
def convolutions(draw: st.DrawFn) -> Case:
    rng, axes = draw(seeds), draw(st.integers(1, 3))
    group, depthwise = draw(st.integers(1, 3)), draw(st.booleans())
    inner = 1 if depthwise else draw(st.integers(1, 2))
    kernel = [draw(st.integers(1, 3)) for _ in range(axes)]
    dilations = [draw(st.integers(1, 2)) for _ in range(axes)]
    strides = [draw(st.integers(1, 4)) for _ in range(axes)]
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    size = [r + draw(st.integers(0, 5 if axes < 3 else 2)) for r in reach]
    attributes = {"group": group, "strides": strides, "dilations": dilations}
    auto_pad = draw(st.sampled_from(["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if auto_pad != "NOTSET":
        attributes["auto_pad"] = auto_pad
        if auto_pad != "VALID":
            attributes["dilations"] = [1] * axes  # ONNX Runtime asks for it
    elif draw(st.booleans()):
        attributes["pads"] = [draw(st.integers(0, 3)) for _ in range(2 * axes)]
    if draw(st.booleans()):
        attributes["kernel_shape"] = kernel
    batch, outer = draw(st.integers(1, 2)), draw(st.integers(1, 2)) * group
    x = rng.normal(size=[batch, inner * group, *size])
    w = rng.normal(size=[outer, inner, *kernel])
    bias = [rng.normal(size=outer)] if draw(st.booleans()) else []
    return Case("Conv", [x, w, *bias], attributes)


@st.composite
def transposed_convolutions(draw: st.DrawFn) -> Case:
    rng, axes = draw(seeds), draw(st.integers(1, 3))
    group = draw(st.integers(1, 3))
    kernel = [draw(st.integers(1, 3)) for _ in range(axes)]
    dilations = [draw(st.integers(1, 2)) for _ in range(axes)]
    strides = [draw(st.integers(1, 3)) for _ in range(axes)]
    size = [draw(st.integers(3, 5 if axes < 3 else 3)) for _ in range(axes)]
    attributes = {"group": group, "strides": strides, "dilations": dilations}
    if draw(st.booleans()):
        attributes["output_padding"] = [draw(st.integers(0, s - 1)) for s in strides]
    match draw(st.sampled_from(["pads", "none", "SAME_UPPER", "SAME_LOWER"])):
        case "pads":
            attributes["pads"] = [draw(st.integers(0, 1)) for _ in range(2 * axes)]
        case "SAME_UPPER" | "SAME_LOWER" as same:
            attributes["auto_pad"] = same
            reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
            attributes["strides"] = [min(s, r) for s, r in zip(strides, reach, strict=True)]
            attributes.pop("output_padding", None)
    x = rng.normal(size=[draw(st.integers(1, 2)), 2 * group, *size])
    w = rng.normal(size=[2 * group, draw(st.integers(1, 2)), *kernel])
    return Case("ConvTranspose", [x, w], attributes)


@st.composite
def gemms(draw: st.DrawFn) -> Case:
    rng = draw(seeds)
    m, k, n = (draw(st.integers(1, 4)) for _ in range(3))
    ta, tb = draw(st.integers(0, 1)), draw(st.integers(0, 1))
    attributes = {"transA": ta, "transB": tb}
    if draw(st.booleans()):
        attributes |= {"alpha": draw(st.sampled_from([0.5, -2.0])), "beta": 0.25}
    a = rng.normal(size=[k, m] if ta else [m, k])
    b = rng.normal(size=[n, k] if tb else [k, n])
    c = draw(st.sampled_from([None, [], [1], [n], [1, n], [m, 1], [m, n]]))
    inputs = [a, b] if c is None else [a, b, rng.normal(size=c)]
    active = draw(st.sampled_from([[0], list(range(len(inputs)))]))
    return Case("Gemm", inputs, attributes, active, dynamic=[] if ta or len(active) > 1 else [0])


@st.composite
def matrix_products(draw: st.DrawFn) -> Case:
    rng = draw(seeds)
    n, k, m = (draw(st.integers(1, 3)) for _ in range(3))
    batch = [draw(st.integers(2, 3)), draw(st.integers(1, 2))]

    def leading() -> list[int]:
        axes = batch[2 - draw(st.integers(0, 2)) :]
        return [size if draw(st.booleans()) else 1 for size in axes]

    a = draw(st.sampled_from([[k], [*leading(), n, k]]))
    b = draw(st.sampled_from([[k], [*leading(), k, m]]))
    active = draw(st.sampled_from([[0], [1], [0, 1]]))
    dynamic = [0] if len(a) == 4 and a[0] > 1 and 0 in active and (len(b) < 4 or b[0] == 1) else []
    return Case("MatMul", [rng.normal(size=a), rng.normal(size=b)], {}, active, dynamic)


CASES = {
    "Conv": convolutions(),
    "ConvTranspose": transposed_convolutions(),
    "Gemm": gemms(),
    "MatMul": matrix_products(),
}
COVERED = set(CASES)


@pytest.mark.parametrize("operator", CASES)
@drawn(20)
@given(data=st.data())
def test_the_rule_is_the_transposed_jacobian(operator: str, data: st.DataObject):
    check_vjp(data.draw(CASES[operator]))


def test_convolution_agrees_with_torch_autograd():
    rng = np.random.default_rng(1)
    x = rng.normal(size=[2, 4, 9, 8])
    w = rng.normal(size=[6, 2, 3, 2])
    attributes = {"group": 2, "strides": [3, 2], "dilations": [2, 1], "pads": [2, 1, 2, 1]}
    (found,) = check_vjp(Case("Conv", [x, w], attributes))
    leaf = torch.tensor(x, requires_grad=True)
    y = functional.conv2d(leaf, torch.tensor(w), None, [3, 2], [2, 1], [2, 1], 2)
    g = np.random.default_rng(0).normal(size=y.shape)
    y.backward(torch.tensor(g))
    np.testing.assert_allclose(found, leaf.grad.numpy(), atol=1e-12)


def test_input_rows_that_no_window_reaches_get_zero():
    x, w = np.ones([1, 1, 7, 7]), np.ones([1, 1, 2, 2])
    (found,) = check_vjp(Case("Conv", [x, w], {"strides": [3, 3]}))
    assert not found[:, :, 5:].any()
    assert not found[..., 5:].any()
    assert found[:, :, :2, :2].all()


def test_transposed_convolution_to_a_given_output_shape():
    rng = np.random.default_rng(1)
    x, w = rng.normal(size=[2, 2, 4, 4]), rng.normal(size=[2, 3, 3, 3])
    attributes = {"output_shape": [8, 7], "strides": [2, 2]}
    check_vjp(Case("ConvTranspose", [x, w], attributes))
    check_vjp(Case("ConvTranspose", [x, w], attributes | {"auto_pad": "SAME_UPPER"}))


@pytest.mark.parametrize("a", [[3], [2, 3], [4, 2, 3], [2, 1, 2, 3]], ids=len)
@pytest.mark.parametrize("b", [[3], [3, 2], [1, 3, 2], [4, 3, 2]], ids=str)
def test_matrix_product_of_every_pair_of_ranks(a: list[int], b: list[int]):
    rng = np.random.default_rng(1)
    case = Case("MatMul", [rng.normal(size=a), rng.normal(size=b)], {}, [0, 1], dynamic=[])
    check_vjp(case)


@pytest.mark.parametrize(
    ("operator", "w", "attributes"),
    [
        ("Conv", [4, 1, 3, 3], {"group": 2, "strides": [2, 1], "pads": [1, 0, 2, 1]}),
        ("Conv", [2, 2, 2, 3], {"dilations": [2, 1]}),
        ("ConvTranspose", [2, 3, 3, 3], {"strides": [2, 2], "output_padding": [1, 0]}),
        ("ConvTranspose", [2, 1, 2, 2], {"group": 2, "strides": [3, 2], "pads": [0, 1, 1, 0]}),
        ("ConvTranspose", [2, 2, 3, 3], {"strides": [3, 2], "output_shape": [15, 11]}),
    ],
)
def test_a_weight_and_a_bias_may_depend_on_the_image(operator, w, attributes):
    """As in dynamic convolutions (CondConv, involution)."""
    rng = np.random.default_rng(0)
    group = attributes.get("group", 1)
    outer = w[0] if operator == "Conv" else w[1] * group
    inputs = [rng.normal(size=s) for s in ([2, 2, 5, 5], w, [outer])]
    check_vjp(Case(operator, inputs, attributes, active=[0, 1, 2]))
