"""The two passes of Pillow's resize, along one axis and then along the other."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.camera.axis import Axis
from onnxplain.export.camera.colours import rounded
from onnxplain.export.camera.resampling import Windows, windows
from onnxplain.export.tensors import on_device

_DOWN, _ACROSS = 2, 3
"""The axes of [N, C, h, w] that a pass goes along."""


def resampled(
    op: OpBuilder, value: ir.Value, rows: Axis, columns: Axis, interpolation: str, down: int
) -> ir.Value:
    """Whole numbers [N, h, w, C] or [N, C, h, w], h being the axis `down`, as [N, C, H, W].

    Rounded after each pass, as Pillow does. Both orders are nodes, for CUDA's graphs have no
    branches; the one that is not taken is of a single pixel.
    """
    read = {
        along: windows(op, axis, interpolation)
        for along, axis in ((_DOWN, rows), (_ACROSS, columns))
    }

    def way(first: int, second: int, taken: ir.Value) -> ir.Value:
        by = {along: _where(op, taken, whole) for along, whole in read.items()}
        ends = [_reach(op, by[along]) for along in (_DOWN, _ACROSS)]
        begin, end = (op.Concat(*both, axis=0) for both in zip(*ends, strict=True))
        image = op.Slice(value, begin, end, [down, down + 1])
        if down == 1:
            image = op.Transpose(image, perm=[0, 3, 1, 2])
        image = rounded(op, _multiplied(op, image, by[first], first))
        return _multiplied(op, image, by[second], second)

    is_down_first = _is_down_first(op, rows, columns)
    across_first = way(_ACROSS, _DOWN, op.Sub(1, is_down_first))
    down_first = way(_DOWN, _ACROSS, is_down_first)
    is_taken = op.Equal(on_device(op, is_down_first), 1)
    return rounded(op, op.Where(is_taken, down_first, across_first))


def _is_down_first(op: OpBuilder, rows: Axis, columns: Axis) -> ir.Value:
    """Of which pass Pillow begins with, since its version 13: an int64 scalar of 0 or 1, on the
    processor.

    Down where rows are taken away, and more than twice as many as columns. Before, it went across
    first always, but for 12.2 and 12.3 where rows are taken away of more than 100 times the width.
    """
    fewer, narrower = (op.Sub(axis.side, axis.resized) for axis in (rows, columns))
    surplus = op.Min(fewer, op.Sub(fewer, op.Mul(narrower, 2)))
    return op.Max(op.Min(surplus, 1), 0)


def _where(op: OpBuilder, taken: ir.Value, whole: Windows) -> Windows:
    """The same; where `taken` is 0 they read the photograph's first pixel alone."""
    length = op.Max(op.Mul(whole.length, taken), 1)
    weights = op.Slice(whole.weights, [0], op.Reshape(length, [1]), [2])
    return replace(whole, begin=op.Mul(whole.begin, taken), length=length, weights=weights)


def _reach(op: OpBuilder, by: Windows) -> tuple[ir.Value, ir.Value]:
    """The first pixel that windows read, and the one behind the last, [1]."""
    first, last = (op.Gather(by.begin, [i]) for i in (0, by.groups - 1))
    return first, op.Add(last, by.length)


def _multiplied(op: OpBuilder, image: ir.Value, by: Windows, along: int) -> ir.Value:
    """What windows make of [N, C, h, w], cut to their reach."""
    starts = op.Sub(by.begin, op.Gather(by.begin, [0]))
    begins, ends = (_each(op, x, by.groups) for x in (starts, op.Add(starts, by.length)))
    weights = by.weights if along == _DOWN else op.Transpose(by.weights, perm=[0, 2, 1])
    parts = []
    for i, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        part, own = op.Slice(image, begin, end, [along]), op.Gather(weights, i, axis=0)
        parts.append(op.MatMul(own, part) if along == _DOWN else op.MatMul(part, own))
    whole = op.Concat(*parts, axis=along) if by.groups > 1 else parts[0]
    if not isinstance(by.size, int):
        return op.Slice(whole, [0], op.Reshape(by.size, [1]), [along])
    return whole if by.size % by.groups == 0 else op.Slice(whole, [0], [by.size], [along])


def _each(op: OpBuilder, numbers: ir.Value, count: int) -> list[ir.Value]:
    """The numbers of [count], each [1]."""
    if count == 1:
        return [numbers]
    return list(op.Split(numbers, axis=0, num_outputs=count, _outputs=count))
