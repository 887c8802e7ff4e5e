"""Outlines in the graph, as `onnxplain.runtime.pictures.marks` draws them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.tensors import (
    constant,
    dims,
    integers,
    on_device,
    scalar_size_at,
    size_of,
    static,
)

_BLACK, _WHITE = (0.5, 0.5, 0.5, 255.5), 255.5  # before the fraction is dropped


def around_boxes(op: OpBuilder, pixels: ir.Value, boxes: ir.Value, several: bool) -> ir.Value:
    """Each box's white line inward from its borders, which are rounded down, and a black one
    outward.

    Args:
        pixels: [N,h,w,C], or [N,K,h,w,C] where `several`; of four channels the last covers.
        boxes: left, top, right, bottom in those pixels, [N,4] or [N,K,4].
    """
    first = 2 if several else 1
    height, width = (op.Shape(pixels, start=axis, end=axis + 1) for axis in (first, first + 1))
    left, top, right, bottom = (
        op.Unsqueeze(op.Slice(op.Floor(boxes), [i], [i + 1], [-1]), [-1]) for i in range(4)
    )
    across, down = _counted(op, width, [1, -1], boxes), _counted(op, height, [-1, 1], boxes)
    depth = op.Min(
        op.Min(op.Sub(across, left), op.Sub(right, across)),
        op.Min(op.Sub(down, top), op.Sub(bottom, down)),
    )
    thick = op.Max(op.Div(op.Min(height, width), 256), 1)
    thick = op.CastLike(op.Range(*_scalars(op, thick), 1), boxes)  # [1]
    valid = op.And(op.Greater(right, left), op.Greater(bottom, top))
    inner = op.And(op.GreaterOrEqual(depth, 0.0), op.Less(depth, thick))
    outer = op.And(op.Less(depth, 0.0), op.GreaterOrEqual(depth, op.Neg(thick)))
    return _drawn(op, pixels, op.And(valid, inner), op.And(valid, outer))


def _scalars(op: OpBuilder, number: ir.Value) -> tuple[ir.Value, ir.Value]:
    number = op.Squeeze(number, [0])
    return number, op.Add(number, 1)


def _counted(op: OpBuilder, size: ir.Value, shape: list[int], like: ir.Value) -> ir.Value:
    """0, 1, … along an axis of pixels; made where they are used."""
    return op.Reshape(op.CastLike(op.Range(0, op.Squeeze(size, [0]), 1), like), shape)


def around_region(op: OpBuilder, pixels: ir.Value, inside: ir.Value, several: bool) -> ir.Value:
    """The last pixels within a region white, the first beyond black.

    Args:
        pixels: [N,h,w,C], or [N,K,h,w,C] where `several`; of four channels the last covers.
        inside: [N,1,h,w], 1 within and 0 beyond.
    """
    padded = op.Pad(inside, [0, 0, 1, 1, 0, 0, 1, 1], mode="edge")
    neighbours = [
        op.Slice(padded, [top, left], [bottom, right], [2, 3])
        for (top, bottom), (left, right) in (
            ((1, -1), (2, _END)),
            ((2, _END), (1, -1)),
            ((1, -1), (0, -2)),
            ((0, -2), (1, -1)),
        )
    ]
    inner = op.Greater(inside, op.Min(*neighbours))
    outer = op.Less(inside, op.Max(*neighbours))
    last = (op.Squeeze(op.Unsqueeze(mask, [-1]), [1]) for mask in (inner, outer))
    return _drawn(op, pixels, *(op.Unsqueeze(mask, [1]) if several else mask for mask in last))


_END = 2**31 - 1


def region_of_network(op: OpBuilder, region: ir.Value, maps: ir.Value) -> ir.Value:
    """A region [N,h',w'], positive inside, of the size of maps [M,C,H,W]: [N,1,H,W], 1 inside and 0
    beyond."""
    for axis, count in enumerate(static(region, 1), 1):
        nearest = _nearest(op, count, maps, axis + 1)
        region = op.Gather(region, nearest, axis=axis)
    inside = op.CastLike(op.Greater(region, 0.0), region)
    return op.Unsqueeze(inside, [1])


def _nearest(op: OpBuilder, count: int, maps: ir.Value, axis: int) -> ir.Value:
    """Which of `count` cells each pixel along an axis of maps lies in."""
    size = dims(maps)[axis]
    if isinstance(size, int):
        return integers(op, (2 * np.arange(size) + 1) * count // (2 * size))
    pixels = scalar_size_at(op, maps, axis)
    doubled = op.Add(op.Mul(op.Range(0, pixels, 1), 2), 1)
    return op.Div(op.Mul(doubled, count), op.Mul(on_device(op, pixels), 2))


def _drawn(op: OpBuilder, pixels: ir.Value, inner: ir.Value, outer: ir.Value) -> ir.Value:
    """With white where `inner` is true and black where `outer` is, [...,h,w] or [...,h,w,1]."""
    inner, outer = (
        mask
        if mask.shape is not None and len(mask.shape) == len(pixels.shape or ())
        else op.Unsqueeze(mask, [-1])
        for mask in (inner, outer)
    )
    black = constant(op, np.array(_BLACK[: size_of(pixels, -1)]), pixels)
    return op.Where(inner, _WHITE, op.Where(outer, black, pixels))
