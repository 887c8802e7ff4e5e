"""Reductions over axes, and running sums along one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.autodiff import Cotangents, Node
from onnxplain.export.operators import Axes, Half, Kind, Linear, never_negative, register_vjp
from onnxplain.export.tensors import (
    attribute,
    axes_from_end,
    constant_of,
    dims,
    integers,
    mean_of,
    rank,
    size_of,
    spread_to,
)


def reduced_axes(node: Node) -> list[int]:
    """The axes that a Reduce operator reduces, counted from the end."""
    x, axes = [*node.inputs, None][:2]
    assert x is not None
    given = constant_of(axes, f"the axes of {node.op_type}")
    if given is not None and given.size:
        return axes_from_end(given.tolist(), rank(x))
    return [] if attribute(node, "noop_with_empty_axes", 0) else list(range(-rank(x), 0))


def _kept(op: OpBuilder, node: Node, value: ir.Value, axes: Sequence[int]) -> ir.Value:
    """`value`, of the output's shape, with the reduced axes put back as ones."""
    return value if attribute(node, "keepdims", 1) or not axes else op.Unsqueeze(value, axes)


def _spread(op: OpBuilder, node: Node, g: ir.Value, axes: Sequence[int]) -> ir.Value:
    x = node.inputs[0]
    if not axes:
        return g
    if all(isinstance(dims(x)[axis], int) for axis in axes):
        sizes = [dims(x)[i] if i - rank(x) in axes else 1 for i in range(rank(x))]
        return op.Expand(_kept(op, node, g, axes), sizes)
    return spread_to(op, _kept(op, node, g, axes), x)


@register_vjp("ReduceSum", kind=Kind.POOL, axes=Axes.LISTED, half=Half.FLOAT32)
def reduce_sum(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    return _spread(op, node, g, reduced_axes(node))


@register_vjp("ReduceMean", kind=Kind.POOL, axes=Axes.LISTED, half=Half.FLOAT32)
def reduce_mean(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    x, axes = node.inputs[0], reduced_axes(node)
    if all(isinstance(dims(x)[axis], int) for axis in axes):
        share = mean_of(op, g, math.prod(size_of(x, axis) for axis in axes))
    else:
        means = op.Max(op.Size(node.outputs[0]), 1)  # there may be none
        share = mean_of(op, g, op.Div(op.Size(x), means))
    return _spread(op, node, share, axes)


@register_vjp("ReduceMax", kind=Kind.MAXIMUM, axes=Axes.LISTED, average="ReduceMean")
@register_vjp("ReduceMin", kind=Kind.MOVE, axes=Axes.LISTED, linear=Linear.NONE)
def reduce_extremum(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """Elements that tie for the extremum share the cotangent equally."""
    axes = reduced_axes(node)
    x, y = node.inputs[0], node.outputs[0]
    wins = op.CastLike(op.Equal(x, _kept(op, node, y, axes)), x)
    count = op.ReduceSum(wins, axes, keepdims=1) if axes else wins
    return op.Mul(op.Div(wins, count), _kept(op, node, g, axes))


@register_vjp("ReduceL2", axes=Axes.LISTED, sign=never_negative, half=Half.FLOAT32)
def reduce_l2(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """g · x / ‖x‖, and 0 where x is 0, as in PyTorch."""
    axes = reduced_axes(node)
    x, y = node.inputs[0], node.outputs[0]
    ratio = op.Where(op.Equal(y, 0.0), 0.0, op.Div(g, y))
    return op.Mul(x, _kept(op, node, ratio, axes))


@register_vjp("ReduceSumSquare", axes=Axes.LISTED, sign=never_negative, half=Half.FLOAT32)
def reduce_sum_square(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    return op.Mul(node.inputs[0], _kept(op, node, op.Mul(g, 2.0), reduced_axes(node)))


@register_vjp("ReduceL1", axes=Axes.LISTED, sign=never_negative, half=Half.FLOAT32)
def reduce_l1(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    return op.Mul(op.Sign(node.inputs[0]), _kept(op, node, g, reduced_axes(node)))


@register_vjp("ReduceProd", axes=Axes.LISTED, half=Half.FLOAT32)
def reduce_prod(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """g · the product of all the others, which is not y / x where one of them is 0.

    Where one other is 0 it is a factor by itself, so that it has a slope; where two are, there is
    none.
    """
    axes = reduced_axes(node)
    x = node.inputs[0]
    if not axes:
        return g
    zero = op.Equal(x, 0.0)
    zeros = op.CastLike(zero, x)
    nonzero = op.Where(zero, 1.0, x)
    others = op.Div(op.ReduceProd(nonzero, axes, keepdims=1), nonzero)
    other_zeros = op.Sub(op.ReduceSum(zeros, axes, keepdims=1), zeros)
    vanishing = op.Mul(x, zeros)
    other = op.Sub(op.ReduceSum(vanishing, axes, keepdims=1), vanishing)
    alone = op.Where(op.Equal(other_zeros, 1.0), other, 0.0)
    factor = op.Where(op.Equal(other_zeros, 0.0), 1.0, alone)
    return op.Mul(_kept(op, node, g, axes), op.Mul(others, factor))


@register_vjp("ReduceLogSum", axes=Axes.LISTED, half=Half.FLOAT32)
def reduce_log_sum(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """g / Σx = g · e^(−y)."""
    return _spread(op, node, op.Mul(g, op.Exp(op.Neg(node.outputs[0]))), reduced_axes(node))


@register_vjp("ReduceLogSumExp", axes=Axes.LISTED, half=Half.FLOAT32)
def reduce_log_sum_exp(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    axes = reduced_axes(node)
    x, y = node.inputs[0], node.outputs[0]
    weights = op.Exp(op.Sub(x, _kept(op, node, y, axes)))
    return op.Mul(weights, _kept(op, node, g, axes))


@register_vjp("CumSum", kind=Kind.POOL, axes=Axes.RUNNING, half=Half.FLOAT32)
def cumulative_sum(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """The running sum from the other end."""
    x, axis = node.inputs
    given = constant_of(axis, "the axis of CumSum")
    assert given is not None
    at = axes_from_end([int(given.reshape(()))], rank(x))[0]
    reverse, exclusive = (attribute(node, name, 0) for name in ("reverse", "exclusive"))
    return op.CumSum(g, integers(op, np.array(at)), exclusive=exclusive, reverse=1 - reverse)
