"""Operators that take or put elements by their indices, which carry no cotangent.

Known indices become padding, gathering or a matrix product. Those found at run time are scattered
by, and what meets in one place is added.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.autodiff import Cotangents, Node
from onnxplain.export.operators import Axes, Half, Kind, Linear, register_vjp
from onnxplain.export.tensors import (
    array_of,
    attribute,
    axis_from_end,
    dims,
    floats_like,
    gather_transpose,
    integers,
    rank,
    reshape,
    reshape_like,
    scalar_size_at,
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
    several_open = sum(not isinstance(n, int) for n in sizes) > 1
    if not taken and several_open:
        flat = op.Unsqueeze(g, [axis])
    else:
        flat = g if len(taken) == 1 else reshape(op, g, sizes)
    known = array_of(index)
    if known is not None and isinstance(size, int):
        return [gather_transpose(op, flat, x, axis, known.reshape(-1), size), None]
    rows = index if len(taken) == 1 else op.Reshape(index, [-1])
    if rank(x) > 1:
        like = y if len(taken) == 1 else reshape(op, y, sizes)
        column = op.Unsqueeze(rows, list(range(1, -axis))) if axis < -1 else rows
        rows = op.Expand(column, op.Shape(like))
        if len(taken) > 1 and not isinstance(sizes[axis], int):  # as many as all axes' together
            sizes[axis] = ir.SymbolicDim(None)
        rows.shape = ir.Shape(sizes)
    return [op.ScatterElements(zeros_like(op, x), rows, flat, axis=axis, reduction="add"), None]


@register_vjp("GatherND", kind=Kind.MOVE, axes=Axes.TUPLES)
def gather_nd(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """Of known indices a Gather of rows, once the indexed axes are merged into one."""
    x, index = node.inputs
    known = array_of(index)
    axes = static(index, -1)[0]
    merged = dims(x)[:axes]
    if (
        known is None
        or attribute(node, "batch_dims", 0)
        or not all(isinstance(n, int) for n in merged)
    ):
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
        count = scalar_size_at(op, x, axis)
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
    _, index, _ = node.inputs
    axis = axis_from_end(node, 0, node.inputs[0])

    def taken(values: ir.Value) -> ir.Value:
        return op.GatherElements(values, index, axis=axis)

    def put(data: ir.Value, values: ir.Value, reduction: str = "none") -> ir.Value:
        return op.ScatterElements(data, index, values, axis=axis, reduction=reduction)

    return _scattered(op, node, g, taken, put)


@register_vjp("ScatterND", kind=Kind.SCATTER, axes=Axes.TUPLES)
def scatter_nd(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    index = node.inputs[1]

    def taken(values: ir.Value) -> ir.Value:
        return op.GatherND(values, index)

    def put(data: ir.Value, values: ir.Value, reduction: str = "none") -> ir.Value:
        return op.ScatterND(data, index, values, reduction=reduction)

    return _scattered(op, node, g, taken, put)


def _scattered(
    op: OpBuilder,
    node: Node,
    g: ir.Value,
    taken: Callable[[ir.Value], ir.Value],
    put: Callable[..., ir.Value],
) -> Cotangents:
    """Updates replace what was there, are added to it, multiply it, or the extremum remains.

    `taken` are the values where the updates were put, and `put` puts others there.
    """
    (data, _, updates), y = node.inputs, node.outputs[0]
    reduction = node.attributes.get_string("reduction", "none")
    if reduction == "none":
        return [put(g, zeros_like(op, updates)), None, lambda: taken(g)]
    if reduction == "add":
        return [g, None, lambda: taken(g)]
    if reduction == "mul":  # of all factors of a place but one, which is not y / x where it is 0
        zeros = [op.Equal(x, 0.0) for x in (data, updates)]
        factors = [op.Where(z, 1.0, x) for z, x in zip(zeros, (data, updates), strict=True)]
        counts = [op.CastLike(z, data) for z in zeros]
        vanishing = [op.Mul(x, n) for x, n in zip((data, updates), counts, strict=True)]
        product, count = put(*factors, "mul"), put(*counts, "add")
        together = put(*vanishing, "add")

        def of(k: int, here: Callable[[ir.Value], ir.Value]) -> ir.Value:
            """Another that is 0, if it is the only one, is a factor, so that it has a slope."""
            others = op.Div(here(op.Mul(g, product)), factors[k])
            other_zeros = op.Sub(here(count), counts[k])
            alone = op.Where(op.Equal(other_zeros, 1.0), op.Sub(here(together), vanishing[k]), 0.0)
            return op.Mul(others, op.Where(op.Equal(other_zeros, 0.0), 1.0, alone))

        return [lambda: of(0, lambda v: v), None, lambda: of(1, taken)]
    wins = [op.CastLike(op.Equal(x, best), g) for x, best in ((data, y), (updates, taken(y)))]
    share = op.Div(g, op.Max(put(*wins, "add"), 1.0))  # those that tie share it equally
    return [op.Mul(share, wins[0]), None, lambda: op.Mul(taken(share), wins[1])]


@register_vjp("TopK", kind=Kind.MOVE, axes=Axes.ALONG, linear=Linear.NONE, half=Half.FLOAT32)
def top_k(op: OpBuilder, node: Node, g: ir.Value, _indices: None) -> Cotangents:
    """Each value goes back to where it was found, which `TopK` tells."""
    x, index = node.inputs[0], node.outputs[1]
    return [op.ScatterElements(zeros_like(op, x), index, g, axis=axis_from_end(node, -1, x)), None]


@register_vjp("Unique", half=Half.FLOAT32, on_cuda=False)
def unique(op: OpBuilder, node: Node, g: ir.Value, *_indices: None) -> Cotangents:
    """Each value goes back to where it was first found."""
    x = node.inputs[0]
    attributes = {name: a.value for name, a in node.attributes.items()}
    first = op.Unique(x, _outputs=2, **attributes)[1]
    if "axis" not in node.attributes:
        flat = op.Reshape(zeros_like(op, x), [-1])
        return reshape_like(op, op.ScatterElements(flat, first, g, reduction="add"), x)
    axis = axis_from_end(node, 0, x)
    column = op.Unsqueeze(first, list(range(1, -axis))) if axis < -1 else first
    rows = op.Expand(column, op.Shape(g))
    return op.ScatterElements(zeros_like(op, x), rows, g, axis=axis, reduction="add")


@register_vjp("OneHot", half=Half.FLOAT32)
def one_hot(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """Constant in the index; the two values are where the index is not, and where it is."""
    index, depth, values = node.inputs

    def of_values() -> ir.Value:
        axis = attribute(node, "axis", -1)
        on = op.OneHot(index, depth, op.CastLike([0.0, 1.0], values), axis=axis)
        axes = list(range(-rank(node.outputs[0]), 0))
        hot, both = (op.ReduceSum(v, axes, keepdims=0) for v in (op.Mul(g, on), g))
        return op.Concat(op.Unsqueeze(op.Sub(both, hot), [-1]), op.Unsqueeze(hot, [-1]), axis=-1)

    return [None, None, of_values]


@register_vjp("EyeLike")
def eye_like(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    return [None]


@register_vjp("Range")
def arithmetic_progression(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """start + i · delta, for as long as the limit allows."""

    def of_delta() -> ir.Value:
        zero, one = (integers(op, np.array(n)) for n in (0, 1))
        steps = floats_like(op, op.Range(zero, op.Size(node.outputs[0]), one), g)
        return op.ReduceSum(op.Mul(g, steps), [-1], keepdims=0)

    return [lambda: op.ReduceSum(g, [-1], keepdims=0), None, of_delta]
