"""Regions of images, each pooled to one size.

As in torchvision, nothing flows to where a region is: that would take the products of its pixels
with its cotangent, regions times channels times pixels.

Where there are no regions, what ONNX Runtime reduces has the shape of what it was: it is reshaped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.autodiff import Cotangents, Node
from onnxplain.export.operators import Half, Kind, Linear, register_vjp
from onnxplain.export.tensors import (
    attribute,
    constant,
    reshape,
    scalar_size_at,
    size_of,
    static,
    zeros_like,
)

CONSTANTS: Mapping[str, Mapping[int, str]] = {"RoiAlign": {1: "the places of its regions"}}
"""Inputs that an explanation takes for constants, though they have a derivative: by operator."""


@dataclass(frozen=True)
class Places:
    """Where a region's bins are sampled along one axis of `size`; all [regions, bins, samples]."""

    at: ir.Value
    """In pixels, inside the image."""
    within: ir.Value
    """Whether the sample is near the image: farther away it is 0."""
    counts: ir.Value
    """Whether it is one of its bin's, of which another region may have more."""
    share: ir.Value
    """1 / the number of the bin's samples."""
    size: int


@dataclass(frozen=True)
class Taps:
    """The pixels along one axis that a bin's maximum is of; all [regions, bins, taps]."""

    index: ir.Value
    weight: ir.Value
    counts: ir.Value


@register_vjp("RoiAlign", kind=Kind.POOL, linear=Linear.NONE, half=Half.FLOAT32)
def roi_align(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """Y = A X Bᵀ for each region, A and B interpolating and averaging along one axis.

    So a region's cotangent is Aᵀ G B, and an image's is the sum of its regions': one matrix product
    over all bins of all regions, which adds in the same order every time.
    """
    x, _, image = node.inputs
    rows, columns = (_aligned(op, node, axis) for axis in (0, 1))
    if node.attributes.get_string("mode", "avg") == "max":
        taps = (_neighbours(op, places) for places in (rows, columns))
        return [_to_largest(op, x, image, g, *taps), None, None]
    channels, height, width = static(x, 1)
    B = op.Unsqueeze(_interpolation(op, columns), [-3])
    along = op.Transpose(op.MatMul(g, B), perm=[0, 2, 1, 3])  # [regions, bins, channels, width]
    along = reshape(op, along, [-1, channels * width])
    A = op.Transpose(_interpolation(op, rows), perm=[2, 0, 1])  # [height, regions, bins]
    images = op.Range(0, scalar_size_at(op, x, 0), 1)
    own = op.CastLike(op.Equal(op.Unsqueeze(images, [1]), image), x)  # [images, regions]
    every = op.Mul(op.Shape(image), size_of(g, 2))
    A = op.Mul(op.Unsqueeze(own, [-3, -1]), A)
    A = op.Reshape(A, op.Concat(op.Shape(x, end=1), [height], every, axis=0))
    gx = reshape(op, op.MatMul(A, along), [-1, height, channels, width])
    return [op.Transpose(gx, perm=[0, 2, 1, 3]), None, None]


def _aligned(op: OpBuilder, node: Node, axis: int) -> Places:
    """Evenly apart in each bin, as many as are asked for, or one for each pixel."""
    x, rois, _ = node.inputs
    size, bins = size_of(x, 2 + axis), size_of(node.outputs[0], 2 + axis)
    whole = node.attributes.get_string("coordinate_transformation_mode") == "output_half_pixel"
    corners = (op.Mul(corner, _spatial_scale(node)) for corner in _corners(op, rois, axis))
    first, last = corners if whole else (op.Sub(corner, 0.5) for corner in corners)
    extent = op.Max(op.Sub(last, first), 1.0) if whole else op.Sub(last, first)
    bin_size = op.Div(extent, float(bins))
    if asked := attribute(node, "sampling_ratio", 0):
        count, step = constant(op, np.full([1, 1, 1], asked), x), constant(op, np.arange(asked), x)
    else:
        count = op.Ceil(bin_size)
        step = op.CastLike(_up_to(op, count), x)
    share = op.Reciprocal(op.Max(count, 1.0))
    start = op.Add(op.Mul(bin_size, constant(op, np.arange(bins)[:, None], x)), first)
    at = op.Add(start, op.Mul(op.Mul(op.Add(step, 0.5), bin_size), share))
    within = op.And(op.GreaterOrEqual(at, -1.0), op.LessOrEqual(at, float(size)))
    counts = op.Expand(op.Less(step, count), op.Shape(at))
    counts.shape = at.shape  # inference does not see through Shape
    return Places(op.Clip(at, 0.0, size - 1.0), within, counts, share, size)


def _spatial_scale(node: Node) -> float:
    return node.attributes.get_float("spatial_scale", 1.0)


def _corners(op: OpBuilder, rois: ir.Value, axis: int) -> tuple[ir.Value, ir.Value]:
    """Where regions begin and end along an axis, the last four numbers being x, y, x, y."""
    first, last = (op.Gather(rois, [i], axis=-1) for i in (-3 - axis, -1 - axis))
    return op.Unsqueeze(first, [-1]), op.Unsqueeze(last, [-1])


def _up_to(op: OpBuilder, count: ir.Value) -> ir.Value:
    """0, 1, 2, … below the largest of the counts."""
    every = op.Concat(op.Reshape(count, [-1]), op.CastLike([1], count), axis=0)
    return op.Range(0, op.Cast(op.ReduceMax(every, keepdims=0), to=ir.DataType.INT64), 1)


def _interpolation(op: OpBuilder, places: Places) -> ir.Value:
    """The matrices [regions, bins, size] by which an axis is interpolated, and averaged."""
    pixels = constant(op, np.arange(places.size), places.at)
    distance = op.Abs(op.Sub(op.Unsqueeze(places.at, [-1]), pixels))
    weight = op.Max(op.Sub(1.0, distance), 0.0)
    counts = op.Unsqueeze(op.And(places.within, places.counts), [-1])
    total = op.ReduceSum(op.Where(counts, weight, 0.0), [-2])
    return op.Mul(reshape(op, total, [-1, size_of(places.at, -2), places.size]), places.share)


def _neighbours(op: OpBuilder, places: Places) -> Taps:
    """The two pixels that each place is between; one that is not near the image weighs nothing."""
    low = op.Floor(places.at)
    part = op.Sub(places.at, low)
    near = [op.Where(places.within, weight, 0.0) for weight in (op.Sub(1.0, part), part)]
    both = [low, op.Min(op.Add(low, 1.0), places.size - 1.0)]
    index = op.Cast(op.Concat(*both, axis=-1), to=ir.DataType.INT64)
    counts = op.Concat(places.counts, places.counts, axis=-1)
    return Taps(index, op.Concat(*near, axis=-1), counts)


def _to_largest(
    op: OpBuilder, x: ir.Value, image: ir.Value, g: ir.Value, rows: Taps, columns: Taps
) -> ir.Value:
    """To the pixel whose weighted value is the bin's: the largest among its taps."""
    channels, height, width = static(x, 1)
    taps = op.Mul(op.Shape(rows.index, start=-1), op.Shape(columns.index, start=-1))

    def crossed(combine: Callable[..., ir.Value], row: ir.Value, column: ir.Value) -> ir.Value:
        """[regions · bins, taps], of each row with each column."""
        both = combine(op.Unsqueeze(row, [-3, -1]), op.Unsqueeze(column, [-4, -2]))
        return op.Reshape(both, op.Concat([-1], taps, axis=0))

    image_at = op.Unsqueeze(op.Mul(image, height * width), [-2, -1])
    index = crossed(op.Add, op.Add(op.Mul(rows.index, width), image_at), columns.index)
    weight = crossed(op.Mul, rows.weight, columns.weight)
    counts = crossed(op.And, rows.counts, columns.counts)

    def by_channel(value: ir.Value) -> ir.Value:
        """[N, C, h, w] → [N · h · w, C]."""
        return reshape(op, op.Transpose(value, perm=[0, 2, 3, 1]), [-1, channels])

    pixels = by_channel(x)
    weighted = op.Mul(op.Gather(pixels, index), op.Unsqueeze(weight, [-1]))
    lowest = float(np.finfo(x.dtype.numpy() if x.dtype else np.float32).min)
    values = op.Where(op.Unsqueeze(counts, [-1]), weighted, lowest)
    winner = reshape(op, op.ArgMax(values, axis=-2), [-1, channels])  # [regions · bins, C]
    # A bin without a tap has a first one that weighs nothing.
    kept = op.GatherElements(op.Where(counts, weight, 0.0), winner, axis=-1)
    at = op.GatherElements(index, winner, axis=-1)
    share = op.Mul(by_channel(g), kept)
    found = op.ScatterElements(zeros_like(op, pixels), at, share, axis=-2, reduction="add")
    return op.Transpose(reshape(op, found, [-1, height, width, channels]), perm=[0, 3, 1, 2])


@register_vjp("MaxRoiPool", kind=Kind.POOL, linear=Linear.NONE, half=Half.FLOAT32, on_cuda=False)
def max_roi_pool(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """To the largest pixel of each bin, the first among equals."""
    x, rois = node.inputs
    image = op.Cast(op.Squeeze(op.Gather(rois, [0], axis=-1), [-1]), to=ir.DataType.INT64)
    return [_to_largest(op, x, image, g, *(_covered(op, node, axis) for axis in (0, 1))), None]


def _covered(op: OpBuilder, node: Node, axis: int) -> Taps:
    """All pixels of a bin, whose ends are rounded outwards."""
    x, rois = node.inputs
    size, bins = size_of(x, 2 + axis), size_of(node.outputs[0], 2 + axis)
    first, last = (
        op.Floor(op.Add(op.Mul(corner, _spatial_scale(node)), 0.5))
        for corner in _corners(op, rois, axis)
    )
    bin_size = op.Div(op.Max(op.Add(op.Sub(last, first), 1.0), 1.0), float(bins))
    number = constant(op, np.arange(bins)[:, None], x)
    ends = op.Floor(op.Mul(bin_size, number)), op.Ceil(op.Mul(bin_size, op.Add(number, 1.0)))
    start, stop = (op.Clip(op.Add(end, first), 0.0, float(size)) for end in ends)
    at = op.Add(start, op.CastLike(_up_to(op, op.Sub(stop, start)), x))
    counts = op.Less(at, stop)
    index = op.Cast(op.Min(at, size - 1.0), to=ir.DataType.INT64)
    return Taps(index, op.CastLike(counts, x), counts)
