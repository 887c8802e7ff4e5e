"""Operands with open sizes, which an operator stretches where one of them turns out to be 1."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeGuard

import onnx_ir as ir
from onnxscript import OpBuilder

STRETCHING = frozenset(
    [
        *("Add", "Div", "Expand", "Gemm", "MatMul", "Max", "Mean", "Min", "Mod", "Mul", "PRelu"),
        *("Pow", "Sub", "Sum", "Where"),
    ]
)
"""Operators that stretch an operand of size 1 along what stands beside it in another."""


def stretched(graph: ir.Graph, node: Any, x: ir.Value) -> list[int]:
    """The axes, from the end, along which a node may stretch its input x.

    There x has an open size of the graph's inputs, and beside it stands a number, or another of
    those, or what is not known.
    """
    if node.op_type not in STRETCHING or x.shape is None:
        return []
    by_result = node.op_type in ("Expand", "Gemm")
    values = node.outputs if by_result else [*node.inputs, *node.outputs]
    shapes = [list(v.shape) for v in values if v is not None and v.shape is not None]
    names = {str(n.value) for v in graph.inputs for n in v.shape or () if _is_open(n)}

    def is_another(size: int | ir.SymbolicDim) -> bool:
        of_inputs = isinstance(size, int) or size.value is None or str(size.value) in names
        return of_inputs or node.op_type == "Expand"  # inference sees no shape that is computed

    gemm = node.op_type == "Gemm" and x in node.inputs[:2]
    multiplied = gemm or node.op_type == "MatMul"
    found = []
    for axis in range(-len(x.shape), -2 if multiplied else 0):
        own = x.shape[axis]
        beside = {shape[axis] for shape in shapes if len(shape) >= -axis} - {1, own}
        if _is_open(own) and str(own.value) in names and any(map(is_another, beside)):
            found.append(axis)
    return found


def _is_open(size: int | ir.SymbolicDim) -> TypeGuard[ir.SymbolicDim]:
    return isinstance(size, ir.SymbolicDim)


def sum_if_one(op: OpBuilder, g: ir.Value, x: ir.Value, axes: Iterable[int]) -> ir.Value:
    """Sum `g` over those of the axes, from the end, along which x turns out to be 1.

    Along the others both are of one size. Each is split in two, of which the outer is summed.
    """
    for axis in axes:
        assert x.shape is not None
        shape = list(x.shape if g.shape is None else g.shape)
        before, after, size = shape[:axis], shape[axis + 1 or len(shape) :], x.shape[axis]
        sizes = [op.Shape(g, end=axis)] if before else []
        sizes += [op.Constant(value_ints=[-1]), op.Shape(x, start=axis, end=axis + 1 or None)]
        sizes += [op.Shape(g, start=axis + 1)] if after else []
        split = op.Reshape(g, op.Concat(*sizes, axis=0))
        split.shape = ir.Shape([*before, None, size, *after])
        g, shape[axis] = op.ReduceSum(split, [len(before)], keepdims=0), size
        g.shape = ir.Shape(shape)
    return g
