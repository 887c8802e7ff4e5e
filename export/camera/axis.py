"""Where a photograph comes to lie in a network's input, along one axis, in nodes on its size.

Sizes are whole numbers that no runtime rounds. ONNX Runtime computes them on the processor, where
Shape leaves them; `onnxplain.export.tensors.on_device` takes them to where the pixels are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.contract.explain import CROP, DOWN, LETTERBOX, Preprocessing
from onnxplain.export.tensors import integers


@dataclass(frozen=True)
class Axis:
    """One axis of a photograph and of the network's input; int64 scalars of the graph.

    Attributes:
        side: the photograph's pixels.
        resized: what it is resized to.
        first: which of those is the input's first; negative where the input begins with a border.
        size: the input's pixels; a value where they are as many as it is resized to.
    """

    side: ir.Value
    resized: ir.Value
    first: ir.Value
    size: int | ir.Value


def axes(op: OpBuilder, height: ir.Value, width: ir.Value, pre: Preprocessing) -> tuple[Axis, Axis]:
    """The rows and the columns, for a photograph of that height and width.

    The same sums as `onnxplain.runtime.inputs.batches`; `round` is Python's, half to even.
    """
    if pre.any_size:
        return _own(op, height, pre.multiple), _own(op, width, pre.multiple)
    if pre.fit == CROP:
        shorter = op.Min(height, width)
        resized = [op.Div(op.Mul(side, pre.resize), shorter) for side in (height, width)]
    elif pre.fit == LETTERBOX:
        pairs = (height, width, pre.height, pre.width), (width, height, pre.width, pre.height)
        resized = [
            op.Max(op.Min(_rounded(op, op.Mul(side, across), other), most), 1)
            for side, other, most, across in pairs
        ]
    else:
        resized = [integer(op, pre.height), integer(op, pre.width)]
    rows, columns = (
        Axis(side, new, _crop_offset(op, op.Sub(new, size), pre.half), size)
        for side, new, size in zip((height, width), resized, (pre.height, pre.width), strict=True)
    )
    return rows, columns


def _own(op: OpBuilder, side: ir.Value, multiple: int) -> Axis:
    """Of a network that takes any size: all of it, resized to the nearest multiple."""
    if multiple > 1:
        times = op.Max(_rounded(op, side, integer(op, multiple)), 1)
        resized = op.Mul(times, multiple)
    else:
        resized = side
    return Axis(side, resized, integer(op, 0), resized)


def integer(op: OpBuilder, number: int) -> ir.Value:
    """A constant int64 scalar."""
    return integers(op, np.array(number))


def _rounded(op: OpBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    """round(a / b) of whole numbers, a ≥ 0 and b > 0, half to even."""
    doubled, whole = op.Mul(b, 2), op.Add(op.Mul(a, 2), b)
    up = op.Div(whole, doubled)
    is_half = op.Sub(1, op.Min(op.Sub(whole, op.Mul(up, doubled)), 1))
    odd = op.Sub(up, op.Mul(op.Div(up, 2), 2))
    return op.Sub(up, op.Mul(is_half, odd))


def _crop_offset(op: OpBuilder, surplus: ir.Value, half: str) -> ir.Value:
    """Where a centre crop begins; negative of a border. No operand is negative: of those, runtimes
    round the quotient differently."""
    missing = op.Max(op.Neg(surplus), 0)
    if half == DOWN:
        border = op.Div(op.Add(missing, 1), 2)
        return op.Sub(op.Div(op.Max(surplus, 0), 2), border)
    border = op.Div(missing, 2)
    return op.Sub(_rounded(op, op.Max(surplus, 0), integer(op, 2)), border)
