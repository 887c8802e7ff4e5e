"""Operators that take or put elements by their indices, which carry no cotangent.

Known indices become padding, gathering or a matrix product. Those found at run time are scattered
by, and what meets in one place is added.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.errors import NoRuleError
from onnxplain.export.autodiff import Cotangents, Node
from onnxplain.export.operators import Axes, Half, Kind, Linear, register_vjp
from onnxplain.export.tensors import (
    array_of,
    attribute,
    axis_from_end,
    dims,
    gather_transpose,
    integers,
    rank,
    reshape,
    reshape_like,
    static,
    zeros_like,
)


@register_vjp("Gather", kind=Kind.MOVE, axes=Axes.ALONG)
def gather(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    (x, index), y = node.inputs, node.outputs[0]
    axis = axis_from_end(node, 0, x)
    sizes = dims(x)
    size = sizes[axis]
    taken = dims(index)
    sizes[axis] = math.prod(taken) if all(isinstance(n, int) for n in taken) else taken[0]
    flat = g if len(taken) == 1 else reshape(op, g, sizes)
    known = array_of(index)
    if known is not None and isinstance(size, int):
        return [gather_transpose(op, flat, x, axis, known.reshape(-1), size), None]
    rows = index if len(taken) == 1 else op.Reshape(index, [-1])
    if rank(x) > 1:
        like = y if len(taken) == 1 else reshape(op, y, sizes)
        column = op.Unsqueeze(rows, list(range(1, -axis))) if axis < -1 else rows
        rows = op.Expand(column, op.Shape(like))
        rows.shape = ir.Shape(sizes)
    return [op.ScatterElements(zeros_like(op, x), rows, flat, axis=axis, reduction="add"), None]


@register_vjp("GatherND", kind=Kind.MOVE, axes=Axes.TUPLES)
def gather_nd(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """Of known indices a Gather of rows, once the indexed axes are merged into one."""
    x, index = node.inputs
    known = array_of(index)
    axes = static(index, -1)[0]
    merged = dims(x)[:axes]
    if known is None or attribute(node, "batch_dims", 0) or not isinstance(merged[0], int):
        return [op.ScatterND(zeros_like(op, x), _tuples(op, node), g, reduction="add"), None]
    indices, sizes = known, static(x, 0, axes)
    positive = np.where(indices < 0, indices + np.array(sizes), indices)
    rows = np.ravel_multi_index(np.moveaxis(positive, -1, 0), sizes).reshape(-1)
    taken = reshape(op, g, [rows.size, -1])
    return [
        reshape_like(op, gather_transpose(op, taken, taken, -2, rows, math.prod(sizes)), x),
        None,
    ]


def _tuples(op: OpBuilder, node: Node) -> ir.Value:
    """The indices of a GatherND with those of its `batch_dims` before them."""
    x, index = node.inputs
    leading = op.Concat(op.Shape(index, end=-1), [1], axis=0)
    columns = []
    for axis in range(attribute(node, "batch_dims", 0)):
        count = op.Squeeze(op.Shape(x, start=axis, end=axis + 1), [0])
        at = op.Range(integers(op, np.array(0)), count, integers(op, np.array(1)))
        columns.append(op.Expand(op.Unsqueeze(at, list(range(1, rank(index) - axis))), leading))
    return op.Concat(*columns, index, axis=-1) if columns else index


@register_vjp("GatherElements", kind=Kind.MOVE, axes=Axes.INDICES)
def gather_elements(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    x, index = node.inputs
    axis = axis_from_end(node, 0, x)
    return [op.ScatterElements(zeros_like(op, x), index, g, axis=axis, reduction="add"), None]


@register_vjp("ScatterElements", kind=Kind.SCATTER, axes=Axes.INDICES)
def scatter_elements(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    data, index, updates = node.inputs
    axis = axis_from_end(node, 0, data)
    ga = g
    if _overwrites(node):
        ga = op.ScatterElements(g, index, zeros_like(op, updates), axis=axis)
    return [ga, None, lambda: op.GatherElements(g, index, axis=axis)]


@register_vjp("ScatterND", kind=Kind.SCATTER, axes=Axes.TUPLES)
def scatter_nd(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    _, index, updates = node.inputs
    ga = op.ScatterND(g, index, zeros_like(op, updates)) if _overwrites(node) else g
    return [ga, None, lambda: op.GatherND(g, index)]


def _overwrites(node: Node) -> bool:
    """Whether updates replace what was there or are added to it; NoRuleError for all else."""
    reduction = node.attributes.get_string("reduction", "none")
    if reduction not in ("none", "add"):
        raise NoRuleError(
            f"no rule for {node.op_type} with reduction {reduction!r}, at node {node.name!r}"
        )
    return reduction == "none"


@register_vjp("TopK", kind=Kind.MOVE, axes=Axes.ALONG, linear=Linear.NONE, half=Half.FLOAT32)
def top_k(op: OpBuilder, node: Node, g: ir.Value, _indices: None) -> Cotangents:
    """Each value goes back to where it was found, which `TopK` tells."""
    x, index = node.inputs[0], node.outputs[1]
    return [op.ScatterElements(zeros_like(op, x), index, g, axis=axis_from_end(node, -1, x)), None]


@register_vjp("OneHot", half=Half.FLOAT32)
@register_vjp("EyeLike")
def from_whole_numbers(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """Constant wherever they have a slope at all; the two values of OneHot have no rule."""
    return [None, None]
