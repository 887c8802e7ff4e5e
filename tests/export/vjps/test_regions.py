"""Regions of images, pooled."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnxscript import OpBuilder
from torchvision.ops import roi_align, roi_pool

from onnxplain.export import VJPS, pull_back
from onnxplain.export.check import (
    Case,
    add_output,
    backward_model,
    builder_of,
    finished,
    forward_model,
)

from .check import Array, check_vjp, cotangent_of, distinct, drawn, runtime

seeds = st.integers(0, 999).map(np.random.default_rng)
ALIGNED = "coordinate_transformation_mode"


def regions(rng: np.random.Generator, count: int) -> Array:
    """Some of them beyond the image, of 7 × 6 pixels, or smaller than a pixel."""
    first = rng.uniform(-3, 6, [count, 2])
    return np.concatenate([first, first + rng.uniform(0, 10, [count, 2])], axis=1)


@st.composite
def alignments(draw: st.DrawFn) -> Case:
    rng, mode = draw(seeds), draw(st.sampled_from(["avg", "max"]))
    attributes: dict[str, Any] = {
        "mode": mode,
        "sampling_ratio": draw(st.integers(0, 3)),
        "spatial_scale": draw(st.sampled_from([1.0, 0.5])),
        "output_height": draw(st.integers(1, 3)),
        "output_width": draw(st.integers(1, 3)),
        ALIGNED: draw(st.sampled_from(["half_pixel", "output_half_pixel"])),
    }
    x = distinct(rng, [2, draw(st.integers(1, 2)), 6, 7])
    count = draw(st.integers(1, 3))
    rois, image = regions(rng, count), rng.integers(0, 2, count)
    return Case("RoiAlign", [x, rois, image], attributes)


CASES = {"RoiAlign": alignments()}
COVERED = {*CASES, "MaxRoiPool"}


@pytest.mark.parametrize("operator", CASES)
@drawn(15)
@given(data=st.data())
def test_the_rule_is_the_transposed_jacobian(operator: str, data: st.DataObject):
    check_vjp(data.draw(CASES[operator]), steps=(1e-3, 1e-5), tolerance=1e-6)


def leaf_of(x: Array) -> torch.Tensor:
    return torch.tensor(x, requires_grad=True)


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("aligned", [True, False])
def test_roi_align_agrees_with_torchvision(aligned: bool, ratio: int):
    rng = np.random.default_rng(1)
    x, rois, image = rng.normal(size=[2, 3, 6, 7]), regions(rng, 5), rng.integers(0, 2, 5)
    leaf, boxes = leaf_of(x), torch.tensor(np.column_stack([image, rois]))
    y = roi_align(leaf, boxes, (3, 2), 0.5, ratio, aligned)
    g = rng.normal(size=y.shape)
    y.backward(torch.tensor(g))
    attributes = {
        **{"spatial_scale": 0.5, "output_height": 3, "output_width": 2, "sampling_ratio": ratio},
        **{ALIGNED: "half_pixel" if aligned else "output_half_pixel"},
    }
    found = cotangent_of(Case("RoiAlign", [x, rois, image], attributes), g)
    np.testing.assert_allclose(found, leaf.grad, atol=1e-9)


def test_max_roi_pool_agrees_with_torchvision():
    rng = np.random.default_rng(1)
    x = rng.normal(size=[2, 3, 6, 7]).astype(np.float32)
    boxes = np.column_stack([rng.integers(0, 2, 5), regions(rng, 5)]).astype(np.float32)
    leaf = leaf_of(x)
    y = roi_pool(leaf, torch.tensor(boxes), (3, 2), 0.5)
    g = rng.normal(size=y.shape).astype(np.float32)
    y.backward(torch.tensor(g))
    case = Case("MaxRoiPool", [x, boxes], {"pooled_shape": [3, 2], "spatial_scale": 0.5})
    (found,) = runtime(backward_model(case, ir.DataType.FLOAT), {"x0": x, "g0": g})
    np.testing.assert_allclose(found, leaf.grad, atol=1e-6)


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("mode", ["avg", "max"])
def test_a_detector_that_finds_nothing(mode: str, ratio: int):
    """Regions are found at run time, where there may be none."""
    attributes = {"mode": mode, "sampling_ratio": ratio, "output_height": 2, "output_width": 2}

    def forward(op: OpBuilder, x: ir.Value, rois: ir.Value) -> list[ir.Value]:
        image = op.Cast(op.Squeeze(op.Slice(rois, [0], [1], [1]), [1]), to=ir.DataType.INT64)
        pooled = op.RoiAlign(x, rois, op.Mul(image, 0), **attributes)
        return [op.Add(op.ReduceSum(x, [1, 2, 3]), op.ReduceSum(pooled))]

    model = forward_model(forward, [["batch", 3, 6, 7], ["regions", 4]], ir.DataType.FLOAT)
    x = model.graph.inputs[0]
    op = builder_of(model)
    (y,) = model.graph.outputs
    seed = op.builder.input("g", y.dtype, y.shape)
    (found,) = pull_back(op, {y: seed}, [x], VJPS)
    model.graph.outputs[:] = []
    add_output(model, found, "cotangent", like=x)
    feeds = {"x0": np.ones([2, 3, 6, 7]), "x1": np.zeros([0, 4]), "g": np.ones([2, 1, 1, 1])}
    feeds = {name: array.astype(np.float32) for name, array in feeds.items()}
    (result,) = runtime(finished(model), feeds)
    np.testing.assert_array_equal(result, feeds["x0"])
