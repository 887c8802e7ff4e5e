"""Pillow's resampling along one axis, as a matrix that the graph computes from the sizes.

What an output pixel takes of the photograph lies within a window around its centre. So the outputs
are parted into groups, each with a matrix of its own that reads what its windows hold together: of
a photograph of 4000 columns an eighth and a margin, and not all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnxscript import OpBuilder

from onnxplain.export.camera.axis import Axis, integer
from onnxplain.export.tensors import integers, on_device

Count: TypeAlias = int | ir.Value
"""A number, or an int64 scalar of the graph, on the processor."""


class Filter(NamedTuple):
    """How far it reaches, in half pixels, and what it weighs at a distance in pixels."""

    reach: int
    weigh: Callable[[OpBuilder, ir.Value], ir.Value]


def _box(op: OpBuilder, x: ir.Value) -> ir.Value:
    """1 in (-½, ½]."""
    inside = op.And(op.Greater(x, -0.499999), op.LessOrEqual(x, 0.500001))
    return op.Cast(inside, to=x.dtype)


def _bilinear(op: OpBuilder, x: ir.Value) -> ir.Value:
    """1 - |x| within 1."""
    return op.Relu(op.Sub(1.0, op.Abs(x)))


def _hamming(op: OpBuilder, x: ir.Value) -> ir.Value:
    """sinc(x) · (0.54 + 0.46 cos πx) within 1."""
    x = op.Min(op.Abs(x), 1.0)
    cosine = op.Cos(op.Mul(x, math.pi))
    return op.Mul(op.Relu(_sinc(op, x)), op.Add(op.Mul(cosine, 0.46), 0.54))


def _bicubic(op: OpBuilder, x: ir.Value) -> ir.Value:
    """Keys' cubic convolution with a = -½: (1.5|x| - 2.5)|x|² + 1 within 1, and
    ((-0.5|x| + 2.5)|x| - 4)|x| + 2 within 2."""
    x = op.Min(op.Abs(x), 2.0)
    near = op.Add(op.Mul(op.Sub(op.Mul(x, 1.5), 2.5), op.Mul(x, x)), 1.0)
    far = op.Add(op.Mul(op.Sub(op.Mul(op.Add(op.Mul(x, -0.5), 2.5), x), 4.0), x), 2.0)
    return op.Where(op.Less(x, 1.0), near, far)


def _lanczos(op: OpBuilder, x: ir.Value) -> ir.Value:
    """sinc(x) · sinc(x / 3) within 3."""
    x = op.Min(op.Abs(x), 3.0)
    within = op.Cast(op.Less(x, 3.0), to=x.dtype)
    return op.Mul(op.Mul(_sinc(op, x), _sinc(op, op.Div(x, 3.0))), within)


def _sinc(op: OpBuilder, x: ir.Value) -> ir.Value:
    """sin(πx) / πx of what is not negative; of 0, 1."""
    angle = op.Max(op.Mul(x, math.pi), 1e-6)
    return op.Div(op.Sin(angle), angle)


NEAREST = "nearest"

_GROUPS, _EACH = 8, 16
"""Groups of outputs, of at least so many."""

_FIXED = 2.0**22
"""Of Pillow's weights, which are whole numbers."""

FILTERS: Mapping[str, Filter] = MappingProxyType(
    {
        "box": Filter(1, _box),
        "bilinear": Filter(2, _bilinear),
        "hamming": Filter(2, _hamming),
        "bicubic": Filter(4, _bicubic),
        "lanczos": Filter(6, _lanczos),
    }
)
"""Pillow's filters by name (its Resample.c), but for nearest, which weighs nothing."""


@dataclass(frozen=True)
class Centres:
    """Where the centres of pixels lie on another grid: at `whole` + `part` of its pixels.

    Attributes:
        whole: int64 [P]: of the pixel that the centre lies in.
        part: float32 [P], in [0, 1).
        within: float32 [P]: 0 of those that lie beside the grid, whose centre is its nearest end's;
            1 of others.
    """

    whole: ir.Value
    part: ir.Value
    within: ir.Value


def _centres(op: OpBuilder, at: ir.Value, count: ir.Value, to: ir.Value) -> Centres:
    """Of the pixels `at` [P] of a grid of `count`, on one of `to` pixels; both scalars."""
    many, others = on_device(op, count), on_device(op, to)
    kept = op.Max(op.Min(at, op.Sub(many, 1)), 0)
    doubled = op.Mul(op.Add(op.Mul(kept, 2), 1), others)
    size = op.Mul(many, 2)
    whole = op.Div(doubled, size)
    left = op.Sub(doubled, op.Mul(whole, size))
    part = op.Div(_number(op, left), _number(op, size))
    return Centres(whole, part, _number(op, op.Equal(at, kept)))


def _counted(op: OpBuilder, count: Count) -> ir.Value:
    """0, 1, … to `count`, where the pixels are."""
    if isinstance(count, int):
        return integers(op, np.arange(count))
    return op.Range(integer(op, 0), count, 1)


def in_photograph(op: OpBuilder, axis: Axis, count: Count) -> Centres:
    """Where `count` pixels of the network's input lie in the photograph, from its first on."""
    at = op.Add(_counted(op, count), on_device(op, axis.first))
    return _centres(op, at, axis.resized, axis.side)


@dataclass(frozen=True)
class Windows:
    """The pixels of a photograph that groups of outputs read, and what they weigh.

    Attributes:
        begin: int64 [G], on the processor: the first of each group, which rises.
        length: int64 scalar, on the processor: how many each reads, all of them the photograph's.
        weights: float32 [G, P, length]; rows of outputs beside the photograph are 0.
        groups: G; of ⌈size / G⌉ outputs, P, the last too many.
        size: all outputs.
    """

    begin: ir.Value
    length: ir.Value
    weights: ir.Value
    groups: int
    size: Count


def windows(op: OpBuilder, axis: Axis, interpolation: str) -> Windows:
    """Of one axis of the network's input."""
    groups, each = _parted(op, axis.size)
    filter_ = FILTERS[interpolation]
    # ⌈reach⌉ pixels before and behind the one that the centre lies in
    doubled = op.Mul(axis.resized, 2)
    widest = op.Mul(op.Max(axis.side, axis.resized), filter_.reach)
    margin = op.Div(op.Add(widest, op.Sub(doubled, 1)), doubled)
    span = op.Div(op.Mul(axis.side, each), axis.resized)
    length = op.Min(op.Add(op.Add(span, op.Mul(margin, 2)), 2), axis.side)

    def begin(many: Count, side: ir.Value, resized: ir.Value, *others: ir.Value) -> ir.Value:
        first, before, most = others
        firsts = _times(op, np.arange(groups), many)
        own = op.Max(op.Min(op.Add(firsts, first), op.Sub(resized, 1)), 0)
        centre = op.Div(op.Mul(op.Add(op.Mul(own, 2), 1), side), op.Mul(resized, 2))
        return op.Max(op.Min(op.Sub(centre, before), most), 0)

    sizes = axis.side, axis.resized, axis.first, margin, op.Sub(axis.side, length)
    there = each if isinstance(each, int) else on_device(op, each)
    start = op.Reshape(begin(there, *(on_device(op, n) for n in sizes)), [groups, 1, 1])
    at = op.Add(start, op.Range(integer(op, 0), length, 1))
    outputs = groups * each if isinstance(each, int) else op.Mul(each, groups)
    weights = _weights(op, axis, in_photograph(op, axis, outputs), at, filter_, groups)
    return Windows(begin(each, *sizes), length, _normalised(op, weights), groups, axis.size)


def _parted(op: OpBuilder, size: Count) -> tuple[int, Count]:
    """Into how many groups outputs are parted, and of how many each is."""
    if isinstance(size, int):
        groups = max(1, min(_GROUPS, size // _EACH))
        return groups, -(-size // groups)
    return _GROUPS, op.Div(op.Add(size, _GROUPS - 1), _GROUPS)


def _times(op: OpBuilder, numbers: NDArray[np.int64], factor: Count) -> ir.Value:
    if isinstance(factor, int):
        return integers(op, numbers * factor)
    return op.Mul(integers(op, numbers), factor)


def matrix(op: OpBuilder, axis: Axis, interpolation: str) -> ir.Value:
    """The same for all of the photograph's pixels: float32 [size, side]."""
    centres = in_photograph(op, axis, axis.size)
    at = op.Range(integer(op, 0), axis.side, 1)
    if interpolation == NEAREST:
        taken = op.Equal(op.Unsqueeze(centres.whole, [1]), op.Unsqueeze(at, [0]))
        return op.Mul(_number(op, taken), op.Unsqueeze(centres.within, [1]))
    each = op.Reshape(at, [1, 1, -1])
    weights = _weights(op, axis, centres, each, FILTERS[interpolation], 1)
    return op.Squeeze(_normalised(op, weights), [0])


def _weights(
    op: OpBuilder, axis: Axis, centres: Centres, at: ir.Value, filter_: Filter, groups: int
) -> ir.Value:
    """Of the pixels `at` [G, 1, K], before they are made to sum to 1: float32 [G, P, K].

    The filter is stretched by side / resized where the photograph is made smaller.
    """
    by_group = [groups, -1, 1]
    apart = op.Sub(_short(op, at), op.Reshape(_short(op, centres.whole), by_group))
    offset = op.Reshape(op.Sub(0.5, centres.part), by_group)
    side, resized = (_number(op, on_device(op, n)) for n in (axis.side, axis.resized))
    distance = op.Mul(op.Add(_number(op, apart), offset), op.Min(op.Div(resized, side), 1.0))
    return op.Mul(filter_.weigh(op, distance), op.Reshape(centres.within, by_group))


def _normalised(op: OpBuilder, weights: ir.Value) -> ir.Value:
    """Weights that sum to 1 for each output, or are all 0.

    In Pillow's fixed point, by which what lies between two numbers is rounded as it does.
    """
    total = op.ReduceSum(weights, [-1], keepdims=1)
    weights = op.Div(weights, op.Where(op.Equal(total, 0.0), 1.0, total))
    return op.Mul(op.Round(op.Mul(weights, _FIXED)), 1 / _FIXED)


def placement(op: OpBuilder, axis: Axis) -> ir.Value:
    """Bilinear interpolation of the network's pixels at the photograph's: float32 [side, size].

    Between the centres of the outermost that show the photograph; 0 where it was cropped.
    """
    photograph = op.Range(integer(op, 0), axis.side, 1)
    found = _centres(op, photograph, axis.side, axis.resized)
    first, resized = (on_device(op, n) for n in (axis.first, axis.resized))
    cell = op.Sub(found.whole, first)
    size = axis.size if isinstance(axis.size, int) else resized
    shown = op.And(op.GreaterOrEqual(cell, 0), op.Less(cell, size))
    low = op.Max(op.Neg(first), 0)
    high = op.Sub(op.Min(op.Sub(resized, first), size), 1)
    at = op.Add(_number(op, cell), op.Sub(found.part, 0.5))
    at = op.Max(op.Min(at, _number(op, high)), _number(op, low))
    apart = op.Sub(op.Unsqueeze(at, [1]), _number(op, _counted(op, axis.size)))
    return op.Mul(_bilinear(op, apart), op.Unsqueeze(_number(op, shown), [1]))


def _number(op: OpBuilder, x: ir.Value) -> ir.Value:
    return op.Cast(x, to=ir.DataType.FLOAT)


def _short(op: OpBuilder, x: ir.Value) -> ir.Value:
    return op.Cast(x, to=ir.DataType.INT32)
