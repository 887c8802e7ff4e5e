"""Interpolation, on a regular grid or at places of the image's choosing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.errors import NoRuleError
from onnxplain.export.autodiff import Cotangents, Node
from onnxplain.export.operators import Axes, Kind, register_vjp
from onnxplain.export.tensors import (
    along_axis,
    attribute,
    axes_from_end,
    constant,
    constant_of,
    dims,
    rank,
    reshape,
    reshape_like,
    size_of,
    static,
    zeros_like,
)


def _unless_cubic(node: Node) -> Sequence[ir.Value | None] | None:
    return None if "cubic" in node.attributes.get_string("mode", "") else node.inputs[:1]


@register_vjp(
    "Resize", kind=Kind.INTERPOLATION, axes=Axes.RESIZE, sign=_unless_cubic, float32_inputs=(1, 2)
)
def resize(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """Separable and linear: along each axis, the transpose of its interpolation matrix."""
    x, y = node.inputs[0], node.outputs[0]
    if node.attributes.get_string("coordinate_transformation_mode", "") == "tf_crop_and_resize":
        raise NoRuleError(f"no rule for Resize by tf_crop_and_resize, at node {node.name!r}")
    if node.attributes.get_string("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise NoRuleError(f"no rule for Resize that keeps the aspect ratio, at node {node.name!r}")
    given = constant_of(node.inputs[2] if len(node.inputs) > 2 else None, "the scales of Resize")
    axes = axes_from_end(node.attributes.get_ints("axes", list(range(rank(x)))), rank(x))
    for i, axis in enumerate(axes):
        scale = float(given[i]) if given is not None and given.size else None
        if scale != 1.0 and (scale is not None or dims(x)[axis] != dims(y)[axis]):
            g = along_axis(op, g, x, axis, op.Transpose(interpolation(op, node, axis, scale)))
    return g


def interpolation(op: OpBuilder, node: Node, axis: int, scale: float | None) -> ir.Value:
    """The matrix [in, out] by which a Resize node interpolates one axis.

    It is what the operator makes of the unit vectors: a node on a constant, which the runtime folds
    when it loads, so that every mode, convention and rounding is the forward pass's own.
    """
    n, m = size_of(node.inputs[0], axis), size_of(node.outputs[0], axis)
    unit = constant(op, np.eye(n).reshape(1, n, 1, n), node.inputs[0])
    kept = {name: a.value for name, a in node.attributes.items() if name != "axes"}
    if scale is None:
        resized = op.Resize(unit, None, None, [1, n, 1, m], **kept)
    else:
        resized = op.Resize(unit, None, [1.0, 1.0, 1.0, scale], **kept)
    return reshape(op, resized, [n, m])


@dataclass(frozen=True)
class Tap:
    """One of the pixels that a place is interpolated from, along one axis; all [N, 1, places]."""

    index: ir.Value
    weight: ir.Value
    slope: ir.Value
    """∂ weight / ∂ place, the place counted in pixels."""


@register_vjp("GridSample", kind=Kind.POOL, sign=_unless_cubic)
def grid_sample(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """y = Σ over the taps of each place: weight · x[tap]. Bilinear or nearest, of images."""
    x, grid = node.inputs
    mode = node.attributes.get_string("mode", "linear")
    padding = node.attributes.get_string("padding_mode", "zeros")
    if rank(x) != 4 or mode not in ("linear", "nearest") or padding not in ("zeros", "border"):
        raise NoRuleError(
            f"no rule for GridSample of rank {rank(x)}, mode {mode!r}, padding {padding!r}, at "
            f"node {node.name!r}"
        )
    channels, height, width = static(x, 1)
    places = math.prod(static(grid, 1, 3))
    at = op.Transpose(reshape(op, grid, [-1, places, 2]), perm=[0, 2, 1])
    columns, rows = op.Split(at, axis=1, num_outputs=2, _outputs=2)
    over, down = (_taps(op, node, u, n) for u, n in ((columns, width), (rows, height)))
    corners = list(itertools.product(down, over))
    indices = [
        op.Expand(op.Add(op.Mul(row.index, width), column.index), [1, channels, 1])
        for row, column in corners
    ]
    pixels, g = (reshape(op, v, [-1, channels, n]) for v, n in ((x, height * width), (g, places)))

    shares = [op.Mul(g, op.Mul(row.weight, column.weight)) for row, column in corners]
    empty = reshape(op, zeros_like(op, x), [-1, channels, height * width])
    joined = [op.Concat(*parts, axis=-1) for parts in (indices, shares)]
    gx = reshape_like(op, op.ScatterElements(empty, *joined, axis=-1, reduction="add"), x)
    if mode == "nearest":
        return [gx, None]

    felt = [
        op.ReduceSum(op.Mul(g, op.GatherElements(pixels, index, axis=2)), [-2], keepdims=1)
        for index in indices
    ]
    pairs = list(zip(felt, corners, strict=True))
    by_column = [op.Mul(s, op.Mul(row.weight, column.slope)) for s, (row, column) in pairs]
    by_row = [op.Mul(s, op.Mul(row.slope, column.weight)) for s, (row, column) in pairs]
    size = np.array([[width], [height]]) - attribute(node, "align_corners", 0)
    both = op.Concat(op.Sum(*by_column), op.Sum(*by_row), axis=-2)
    ggrid = op.Transpose(op.Mul(both, constant(op, size / 2, x)), perm=[0, 2, 1])
    return [gx, reshape_like(op, ggrid, grid)]


def _taps(op: OpBuilder, node: Node, u: ir.Value, size: int) -> list[Tap]:
    """The taps along an axis of places `u`, from −1 to 1 over the image or its pixel centres."""
    centre, last = (size - 1) / 2, float(size - 1)
    half = centre if attribute(node, "align_corners", 0) else size / 2
    place = op.Add(op.Mul(u, half), centre)
    one = op.Exp(op.Mul(u, 0.0))
    moves = one
    if node.attributes.get_string("padding_mode", "zeros") == "border":
        free = op.And(op.Greater(place, 0.0), op.Less(place, last))
        place, moves = op.Clip(place, 0.0, last), op.Where(free, one, 0.0)
    if node.attributes.get_string("mode", "linear") == "nearest":
        found = [(op.Round(place), one, moves)]
    else:
        low = op.Floor(place)
        part = op.Sub(place, low)
        found = [
            (low, op.Sub(1.0, part), op.Neg(moves)),
            (op.Add(low, 1.0), part, moves),
        ]
    taps = []
    for index, *numbers in found:
        inside = op.And(op.GreaterOrEqual(index, 0.0), op.LessOrEqual(index, last))
        kept = op.Cast(op.Clip(index, 0.0, last), to=ir.DataType.INT64)
        taps.append(Tap(kept, *(op.Where(inside, number, 0.0) for number in numbers)))
    return taps


@register_vjp("AffineGrid", on_gpu=False)
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
