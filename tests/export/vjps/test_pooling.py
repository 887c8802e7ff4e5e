"""Pools."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.nn import functional

from .check import Case, check_vjp, distinct, drawn
from .float64 import pool_geometry

seeds = st.integers(0, 999).map(np.random.default_rng)


@st.composite
def pools(draw: st.DrawFn, op: str) -> Case:
    rng, axes = draw(seeds), draw(st.integers(1, 3))
    kernel = [draw(st.integers(1, 3)) for _ in range(axes)]
    dilations = [draw(st.integers(1, 2)) for _ in range(axes)]
    attributes = {
        "kernel_shape": kernel,
        "strides": [draw(st.integers(1, 4)) for _ in range(axes)],
        "ceil_mode": draw(st.integers(0, 1)),
    }
    match draw(st.sampled_from(["pads", "none", "SAME_UPPER", "SAME_LOWER", "VALID"])):
        case "pads":  # less than the kernel, or a window might hold nothing of the input
            attributes["pads"] = [draw(st.integers(0, k - 1)) for k in kernel * 2]
            attributes["dilations"] = dilations
        case "none":
            attributes["dilations"] = dilations
        case auto_pad:
            attributes["auto_pad"] = auto_pad
            dilations = [1] * axes
            # Where a stride leaves two rows out, ONNX Runtime pads by a negative number.
            strides = zip(attributes["strides"], kernel, strict=True)
            attributes["strides"] = [min(s, k + 1) for s, k in strides]
    if op == "AveragePool":
        attributes["count_include_pad"] = draw(st.integers(0, 1))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    size = [r + draw(st.integers(0, 5 if axes < 3 else 2)) for r in reach]
    x = distinct(rng, [draw(st.integers(1, 2)), draw(st.integers(1, 2)), *size])
    return Case(op, [x], attributes)


@st.composite
def global_pools(draw: st.DrawFn, op: str) -> Case:
    shape = draw(st.lists(st.integers(1, 4), min_size=3, max_size=5))
    return Case(op, [distinct(draw(seeds), shape)])


CASES = {
    "MaxPool": pools("MaxPool"),
    "AveragePool": pools("AveragePool"),
    "GlobalAveragePool": global_pools("GlobalAveragePool"),
    "GlobalMaxPool": global_pools("GlobalMaxPool"),
}
COVERED = set(CASES)


@pytest.mark.parametrize("operator", CASES)
@drawn(60)
@given(data=st.data())
def test_the_rule_is_the_transposed_jacobian(operator: str, data: st.DataObject):
    check_vjp(data.draw(CASES[operator]))
