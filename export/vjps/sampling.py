"""Interpolation, on a regular grid or at places of the image's choosing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.errors import OpenSizeError
from onnxplain.export.autodiff import Cotangents, Node
from onnxplain.export.operators import Axes, Half, Kind, register_vjp
from onnxplain.export.tensors import (
    along_axis,
    array_of,
    attribute,
    axes_from_end,
    constant,
    constant_of,
    dims,
    is_known,
    rank,
    reshape,
    reshape_like,
    same_size,
    size_at,
    size_of,
    static,
    zeros_like,
)


def _unless_cubic(node: Node) -> Sequence[ir.Value | None] | None:
    return None if "cubic" in node.attributes.get_string("mode", "") else node.inputs[:1]


@register_vjp(
    "Resize",
    kind=Kind.INTERPOLATION,
    axes=Axes.RESIZE,
    sign=_unless_cubic,
    half=Half.FOLLOWS,
    float32_inputs=(1, 2),
)
def resize(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """Separable and linear: along each axis, the transpose of its interpolation matrix."""
    x, y = node.inputs[0], node.outputs[0]
    scales = node.inputs[2] if len(node.inputs) > 2 else None
    given = array_of(scales)
    axes = axes_from_end(node.attributes.get_ints("axes", list(range(rank(x)))), rank(x))
    bounded = node.attributes.get_string("keep_aspect_ratio_policy", "stretch") != "stretch"
    ratio = _ratio(node, axes) if bounded and not (given is not None and given.size) else None
    for i, axis in enumerate(axes):
        scale: float | ir.Value | None = None
        if given is None and scales is not None:
            scale = op.Slice(scales, [i], [i + 1])
        elif given is not None and given.size:
            scale = float(given[i])
        part = _part(node, i, len(axes))
        like = same_size(dims(x)[axis], dims(y)[axis])
        stays = scale == 1.0 or (like and not isinstance(scale, float))
        if ratio is not None:
            stays = ratio == 1
        if not stays or part not in (None, (0.0, 1.0)):
            matrix = interpolation(op, node, axis, scale, part, ratio)
            g = along_axis(op, g, x, axis, op.Transpose(matrix))
    return g


def _ratio(node: Node, axes: Sequence[int]) -> Fraction:
    """The scale of all axes where the sizes asked for bound the result, and the ratio is kept."""
    sizes = constant_of(node.inputs[3], "the sizes of Resize")
    assert sizes is not None
    each = (Fraction(int(m), size_of(node.inputs[0], i)) for m, i in zip(sizes, axes, strict=True))
    policy = node.attributes.get_string("keep_aspect_ratio_policy")
    return min(each) if policy == "not_larger" else max(each)


def _part(node: Node, index: int, axes: int) -> tuple[float, float] | None:
    """Which part of an axis tf_crop_and_resize takes, from 0 to 1; None in any other mode."""
    if node.attributes.get_string("coordinate_transformation_mode", "") != "tf_crop_and_resize":
        return None
    roi = constant_of(node.inputs[1], "the region of Resize")
    assert roi is not None
    return float(roi[index]), float(roi[index + axes])


def interpolation(
    op: OpBuilder,
    node: Node,
    axis: int,
    scale: float | ir.Value | None,
    part: tuple[float, float] | None = None,
    ratio: Fraction | None = None,
) -> ir.Value:
    """The matrix [in, out] by which a Resize node interpolates one axis.

    It is what the operator makes of the unit vectors: a node on a constant, which the runtime folds
    when it loads, so that every mode, convention and rounding is the forward pass's own.
    """
    x, y = node.inputs[0], node.outputs[0]
    if not (is_known(dims(x)[axis]) and is_known(dims(y)[axis])):
        return _of_open(op, node, axis, scale, part, ratio)
    n, m = size_of(x, axis), size_of(y, axis)
    unit = constant(op, np.eye(n).reshape(1, n, 1, n), node.inputs[0])
    kept, region = _kept(node), _region(part)
    if ratio is not None:  # kept by one more axis, whose size decides it, however this one rounds
        policy = node.attributes.get_string("keep_aspect_ratio_policy")
        beside = op.Expand(unit, [1, n, ratio.denominator, n])
        sizes = [ratio.numerator, m + 1 if policy == "not_larger" else 1]
        kept |= {"axes": [2, 3], "keep_aspect_ratio_policy": policy}
        resized = op.Gather(op.Resize(beside, region, None, sizes, **kept), [0], axis=2)
    elif scale is None:
        resized = op.Resize(unit, region, None, [1, n, 1, m], **kept)
    else:
        resized = op.Resize(unit, region, [1.0, 1.0, 1.0, scale], **kept)
    return reshape(op, resized, [n, m])


def _kept(node: Node) -> dict[str, Any]:
    """The attributes of a Resize of one axis; what is put beside an image has no slope."""
    left_out = ("axes", "extrapolation_value", "keep_aspect_ratio_policy")
    return {name: a.value for name, a in node.attributes.items() if name not in left_out}


def _region(part: tuple[float, float] | None) -> list[float] | None:
    return None if part is None else [0.0, 0.0, 0.0, part[0], 1.0, 1.0, 1.0, part[1]]


def _of_open(
    op: OpBuilder,
    node: Node,
    axis: int,
    scale: float | ir.Value | None,
    part: tuple[float, float] | None,
    ratio: Fraction | None,
) -> ir.Value:
    """The same where a size is open: of unit vectors that are made at run time.

    Raises:
        OpenSizeError: sizes that the aspect ratio bounds.
    """
    x, y = node.inputs[0], node.outputs[0]
    if ratio is not None:
        raise OpenSizeError(f"{x.name!r} {x.shape} keeps its aspect ratio")
    n, m = size_at(op, x, axis), size_at(op, y, axis)
    at = op.Range(0, op.Squeeze(n, [0]), 1)
    unit = op.CastLike(op.Equal(op.Unsqueeze(at, [0, 2, 3]), op.Unsqueeze(at, [0, 1, 2])), x)
    kept, region = _kept(node), _region(part)
    if scale is None:
        resized = op.Resize(unit, region, None, op.Concat([1], n, [1], m, axis=0), **kept)
    elif isinstance(scale, float):
        resized = op.Resize(unit, region, [1.0, 1.0, 1.0, scale], **kept)
    else:
        scales = op.Concat([1.0, 1.0, 1.0], scale, axis=0)
        resized = op.Resize(unit, region, scales, **kept)
    matrix = op.Squeeze(resized, [0, 2])
    matrix.shape = ir.Shape([None, None])
    return matrix


@dataclass(frozen=True)
class Tap:
    """One of the pixels that a place is interpolated from, along one axis; all [N, 1, places]."""

    index: ir.Value
    weight: ir.Value
    slope: ir.Value
    """∂ weight / ∂ place, the place counted in pixels."""


@register_vjp("GridSample", kind=Kind.POOL, sign=_unless_cubic)
def grid_sample(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """y = Σ over the taps of each place: weight · x[tap], a weight being one of each axis."""
    x, grid = node.inputs
    channels, *size = static(x, 1)
    places, pixels = math.prod(static(grid, 1, -1)), math.prod(size)
    at = op.Transpose(reshape(op, grid, [-1, places, len(size)]), perm=[0, 2, 1])
    along = op.Split(at, axis=1, num_outputs=len(size), _outputs=len(size))
    # A place's last number is along the first axis.
    taps = [_taps(op, node, u, n) for u, n in zip(reversed(along), size, strict=True)]
    corners = list(itertools.product(*taps))

    def index_of(corner: Sequence[Tap]) -> ir.Value:
        index = corner[0].index
        for tap, n in zip(corner[1:], size[1:], strict=True):
            index = op.Add(op.Mul(index, n), tap.index)
        return op.Expand(index, [1, channels, 1])

    def product(corner: Sequence[Tap], moved: int | None = None) -> ir.Value:
        """Of the weights, that of the axis `moved` being its slope."""
        each = (tap.slope if i == moved else tap.weight for i, tap in enumerate(corner))
        return reduce(op.Mul, each)

    indices = [index_of(corner) for corner in corners]
    flat, g = (reshape(op, v, [-1, channels, n]) for v, n in ((x, pixels), (g, places)))
    shares = [op.Mul(g, product(corner)) for corner in corners]
    empty = reshape(op, zeros_like(op, x), [-1, channels, pixels])
    joined = [op.Concat(*parts, axis=-1) for parts in (indices, shares)]
    gx = reshape_like(op, op.ScatterElements(empty, *joined, axis=-1, reduction="add"), x)
    if node.attributes.get_string("mode", "linear") == "nearest":
        return [gx, None]

    felt = [
        op.ReduceSum(op.Mul(g, op.GatherElements(flat, index, axis=2)), [-2], keepdims=1)
        for index in indices
    ]
    by_axis = [
        op.Sum(*(op.Mul(s, product(c, moved)) for s, c in zip(felt, corners, strict=True)))
        for moved in range(len(size))
    ]
    span = np.array(size[::-1])[:, None] - attribute(node, "align_corners", 0)
    all_axes = op.Concat(*reversed(by_axis), axis=-2)
    ggrid = op.Transpose(op.Mul(all_axes, constant(op, span / 2, x)), perm=[0, 2, 1])
    return [gx, reshape_like(op, ggrid, grid)]


def _taps(op: OpBuilder, node: Node, u: ir.Value, size: int) -> list[Tap]:
    """The taps along an axis of places `u`, from −1 to 1 over the image or its pixel centres."""
    mode = node.attributes.get_string("mode", "linear")
    padding = node.attributes.get_string("padding_mode", "zeros")
    centre, last = (size - 1) / 2, float(size - 1)
    half = centre if attribute(node, "align_corners", 0) else size / 2
    place = op.Add(op.Mul(u, half), centre)
    moves = one = op.Exp(op.Mul(u, 0.0))
    if mode != "cubic":
        place, moves = _inside(op, padding, place, one, (centre - half, centre + half), last)
    if mode == "nearest":
        found = [(op.Round(place), one, moves)]
    else:
        low = op.Floor(place)
        part = op.Sub(place, low)
        if mode == "linear":
            found = [(low, op.Sub(1.0, part), op.Neg(moves)), (op.Add(low, 1.0), part, moves)]
        else:
            found = [(op.Add(low, float(k)), *_cubic(op, part, k)) for k in (-1, 0, 1, 2)]
    taps = []
    for index, *numbers in found:
        if mode == "cubic":
            index, _ = _inside(op, padding, index, one, (centre - half, centre + half), last)
        inside = op.And(op.GreaterOrEqual(index, 0.0), op.LessOrEqual(index, last))
        kept = op.Cast(op.Clip(index, 0.0, last), to=ir.DataType.INT64)
        taps.append(Tap(kept, *(op.Where(inside, number, 0.0) for number in numbers)))
    return taps


def _inside(
    op: OpBuilder,
    padding: str,
    place: ir.Value,
    one: ir.Value,
    ends: tuple[float, float],
    last: float,
) -> tuple[ir.Value, ir.Value]:
    """Where a place is taken from, and how that moves with it; `one` is 1 of its shape."""
    moves = one
    if padding == "reflection":
        (low, high), span = ends, ends[1] - ends[0]
        if not span:
            return op.Mul(one, low), op.Mul(one, 0.0)
        away = op.Sub(place, low)
        turns = op.Floor(op.Div(op.Abs(away), span))
        rest = op.Sub(op.Abs(away), op.Mul(turns, span))
        odd = op.Greater(op.Sub(turns, op.Mul(op.Floor(op.Mul(turns, 0.5)), 2.0)), 0.5)
        place = op.Where(odd, op.Sub(high, rest), op.Add(rest, low))
        moves = op.Where(odd, op.Neg(op.Sign(away)), op.Sign(away))
    if padding in ("border", "reflection"):
        free = op.And(op.Greater(place, 0.0), op.Less(place, last))
        place, moves = op.Clip(place, 0.0, last), op.Where(free, moves, 0.0)
    return place, moves


def _cubic(op: OpBuilder, part: ir.Value, k: int) -> tuple[ir.Value, ir.Value]:
    """The weight of the pixel k away from the one below a place, and its slope in `part`.

    Keys' kernel with a = −0.75: a polynomial in the distance, near the place and farther away.
    """
    a = -0.75
    near, far = (a + 2, -a - 3, 0.0, 1.0), (a, -5 * a, 8 * a, -4 * a)
    kernel = np.poly1d(near if k in (0, 1) else far)
    side = 1.0 if k <= 0 else -1.0
    in_part = kernel(np.poly1d([side, -side * k]))

    def at(polynomial: np.poly1d) -> ir.Value:
        value = op.Add(op.Mul(part, 0.0), float(polynomial.coeffs[0]))
        for c in polynomial.coeffs[1:]:
            value = op.Add(op.Mul(value, part), float(c))
        return value

    return at(in_part), at(in_part.deriv())


@register_vjp("AffineGrid", on_cuda=False)
def affine_grid(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """Every place is θ·(x, y, 1), or θ·(x, y, z, 1) in a volume."""
    theta, y = node.inputs[0], node.outputs[0]
    size = static(y, 1, -1)
    inset = 0 if attribute(node, "align_corners", 0) else 1
    axes = [(2 * np.arange(n) + inset) / (n - 1 + inset) - 1 for n in size]
    at = np.meshgrid(*axes, indexing="ij")
    places = np.stack([*at[::-1], np.ones(size)], axis=-1).reshape(-1, len(size) + 1)
    along = op.Transpose(reshape(op, g, [-1, math.prod(size), len(size)]), perm=[0, 2, 1])
    return [op.MatMul(along, constant(op, places, theta)), None]
