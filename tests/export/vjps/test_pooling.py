"""Pools."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from onnxplain.export.check import Case

from .check import check_vjp, cotangent_of, distinct, drawn

seeds = st.integers(0, 999).map(np.random.default_rng)


@st.composite
def pools(draw: st.DrawFn, op: str) -> Case:
    rng, axes = draw(seeds), draw(st.integers(1, 3))
    kernel = [draw(st.integers(1, 3)) for _ in range(axes)]
    strides = [draw(st.integers(1, 4)) for _ in range(axes)]
    dilations = [draw(st.integers(1, 2)) for _ in range(axes)]
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    attributes: dict[str, Any] = {"kernel_shape": kernel}
    auto_pad = draw(st.sampled_from(["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if auto_pad == "NOTSET":
        # Pads less than the kernel, or a window might hold nothing of the input.
        pads = [draw(st.integers(0, k - 1)) for k in kernel * 2]
        attributes |= {"pads": pads, "dilations": dilations}
        if draw(st.booleans()):
            # Before opset 22, shape inference counts windows that start in the padding at the
            # end; no runtime does.
            rooms = zip(strides, reach, pads[axes:], strict=True)
            strides = [min(s, r - p) for s, r, p in rooms]
            attributes["ceil_mode"] = 1
        if draw(st.booleans()):
            del attributes["pads"]
    else:
        # Where a stride leaves rows out, ONNX Runtime pads by a negative number, or refuses.
        strides = [min(s, k) for s, k in zip(strides, kernel, strict=True)]
        attributes["auto_pad"] = auto_pad
    attributes["strides"] = strides
    if op == "LpPool":
        attributes["p"] = draw(st.integers(1, 3))
    if op == "AveragePool":
        attributes["count_include_pad"] = draw(st.integers(0, 1))
    size = [r + draw(st.integers(0, 5 if axes < 3 else 2)) for r in reach]
    x = distinct(rng, [draw(st.integers(1, 2)), draw(st.integers(1, 2)), *size])
    return Case(op, [x], attributes)


@st.composite
def global_pools(draw: st.DrawFn, op: str) -> Case:
    shape = draw(st.lists(st.integers(1, 4), min_size=3, max_size=5))
    attributes = {"p": draw(st.integers(1, 3))} if op == "GlobalLpPool" else {}
    return Case(op, [distinct(draw(seeds), shape)], attributes)


@st.composite
def unpools(draw: st.DrawFn) -> Case:
    """Every pixel of `x` at a place of its own, counted through the whole output."""
    rng, n, c = draw(seeds), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    size = [draw(st.integers(1, 3)) for _ in range(2)]
    wide = int(np.prod(size)) * 4
    within = [rng.permutation(wide)[: wide // 4] for _ in range(n * c)]
    at = np.array(within) + wide * np.arange(n * c)[:, None]
    attributes = {"kernel_shape": [2, 2], "strides": [2, 2]}
    inputs = [rng.normal(size=[n, c, *size]), at.reshape([n, c, *size])]
    return Case("MaxUnpool", inputs, attributes, dynamic=[])


CASES = {
    "MaxPool": pools("MaxPool"),
    "AveragePool": pools("AveragePool"),
    "GlobalAveragePool": global_pools("GlobalAveragePool"),
    "GlobalMaxPool": global_pools("GlobalMaxPool"),
    "LpPool": pools("LpPool"),
    "GlobalLpPool": global_pools("GlobalLpPool"),
    "MaxUnpool": unpools(),
}
COVERED = set(CASES)


@pytest.mark.parametrize("operator", CASES)
@drawn(20)
@given(data=st.data())
def test_the_rule_is_the_transposed_jacobian(operator: str, data: st.DataObject):
    check_vjp(data.draw(CASES[operator]))


def rows(*values: float) -> np.ndarray:
    return np.array(values).reshape(1, 1, -1)


@pytest.mark.parametrize("kernel", [[3], [2, 3], [1, 2, 2]])
def test_average_pool_of_windows_that_tile_gives_each_element_its_share(kernel: list[int]):
    x = distinct(np.random.default_rng(0), [2, 3, *(2 * k for k in kernel)])
    (found,) = check_vjp(Case("AveragePool", [x], {"kernel_shape": kernel, "strides": kernel}))
    assert found[0, 0].flat[0] == found[0, 0].flat[kernel[-1] - 1]  # of one window


def test_average_pool_counts_padding_only_when_told_to():
    """Two windows of two over [0 x] and [x 0]."""
    g = np.random.default_rng(0).normal(size=2)
    attributes = {"kernel_shape": [2], "pads": [1, 1]}
    (found,) = check_vjp(Case("AveragePool", [rows(5.0)], attributes))
    assert found.item() == pytest.approx(g.sum())
    (found,) = check_vjp(Case("AveragePool", [rows(5.0)], attributes | {"count_include_pad": 1}))
    assert found.item() == pytest.approx(g.sum() / 2)


def test_average_pool_counts_the_padding_that_auto_pad_makes():
    """Windows [x0 x1] and [x1 0]."""
    g = np.random.default_rng(0).normal(size=2)
    attributes = {"kernel_shape": [2], "auto_pad": "SAME_UPPER", "count_include_pad": 1}
    (found,) = check_vjp(Case("AveragePool", [rows(1.0, 2.0)], attributes))
    np.testing.assert_allclose(found, rows(g[0] / 2, g[0] / 2 + g[1] / 2))


def test_average_pool_never_counts_what_hangs_over():
    """Windows [x0 x1 x2] and [x2 x3 ·]: the second is a mean of two."""
    g = np.random.default_rng(0).normal(size=2)
    attributes = {"kernel_shape": [3], "strides": [2], "ceil_mode": 1, "count_include_pad": 1}
    (found,) = check_vjp(Case("AveragePool", [rows(1.0, 2.0, 3.0, 4.0)], attributes))
    np.testing.assert_allclose(found, rows(g[0] / 3, g[0] / 3, g[0] / 3 + g[1] / 2, g[1] / 2))


def test_overlapping_maxima_add_up():
    """The middle is the maximum of both windows."""
    g = np.random.default_rng(0).normal(size=2)
    (found,) = check_vjp(Case("MaxPool", [rows(1.0, 5.0, 2.0)], {"kernel_shape": [2]}))
    np.testing.assert_allclose(found, rows(0.0, g.sum(), 0.0))


def test_padding_is_never_the_maximum():
    x = rows(-3.0, -2.0)
    (found,) = check_vjp(Case("MaxPool", [x], {"kernel_shape": [2], "pads": [1, 1]}))
    g = np.random.default_rng(0).normal(size=3)
    np.testing.assert_allclose(found, rows(g[0], g[1] + g[2]))


@pytest.mark.parametrize("dilation", [1, 2])
def test_among_equals_the_first_maximum_gets_it_all_as_in_torch(dilation: int):
    """A ReLU before the pool makes ties of zeros the rule, not the exception."""
    x = np.maximum(np.random.default_rng(3).normal(size=[2, 3, 9, 8]) - 0.7, 0)
    leaf = torch.tensor(x, requires_grad=True)
    y = functional.max_pool2d(leaf, 3, 2, 1, dilation, ceil_mode=True)
    g = np.random.default_rng(0).normal(size=y.shape)
    y.backward(torch.tensor(g))
    attributes = {
        "kernel_shape": [3, 3],
        "strides": [2, 2],
        "pads": [1] * 4,
        "dilations": [dilation] * 2,
        "ceil_mode": 1,
    }
    found = cotangent_of(Case("MaxPool", [x], attributes), g)
    np.testing.assert_allclose(found, leaf.grad)


def test_among_equals_the_first_pixel_is_the_global_maximum():
    g = np.array([2.0]).reshape(1, 1, 1, 1)
    found = cotangent_of(Case("GlobalMaxPool", [np.ones([1, 1, 2, 2])]), g)
    assert found.ravel().tolist() == [2, 0, 0, 0]


def test_a_max_pool_whose_indices_are_an_output_too():
    x = distinct(np.random.default_rng(0), [2, 2, 6, 6])
    case = Case("MaxPool", [x], {"kernel_shape": [2, 2]}, outputs=2)
    g = np.random.default_rng(0).normal(size=[2, 2, 5, 5])
    one = Case("MaxPool", [x], {"kernel_shape": [2, 2]})
    np.testing.assert_array_equal(cotangent_of(case, g), cotangent_of(one, g))
