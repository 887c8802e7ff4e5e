"""K targets, one forward: repeat what depends on the cotangents along a new leading axis.

As `jax.vmap` would: every value computed from the seeds gets an axis K before all others, every
node that computes it is rewritten by its operator's batching rule, and the forward pass, with no
such axis, is shared. Elementwise operators broadcast over it, so a gate is computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.errors import SourceError
from onnxplain.export.autodiff import Node, operator_name
from onnxplain.export.tensors import (
    attribute,
    axes_from_end,
    axis_from_end,
    constant_of,
    dims,
    integers,
    rank,
    size_of,
)

Inputs: TypeAlias = list[ir.Value | None]
Outputs: TypeAlias = ir.Value | Sequence[ir.Value]
BatchingRule: TypeAlias = Callable[[OpBuilder, Node, Inputs, set[int], ir.Value], Outputs]
"""`rule(op, node, inputs, mapped, K)`: the node on `inputs`, those at the indices `mapped` having
the new axis; `K` is that axis's size, int64 [1]."""


def vmap(
    op: OpBuilder, nodes: Sequence[Node], seeds: Mapping[ir.Value, ir.Value], K: ir.Value
) -> dict[ir.Value, ir.Value]:
    """Repeat `nodes` (in graph order) for seeds with one more leading axis of size `K`.

    Args:
        seeds: each value to replace → its replacement [K, *its shape].

    Returns:
        Every value that depends on a seed → the same with the leading axis.

    Raises:
        SourceError: a node on the way has no batching rule.
    """
    mapped = dict(seeds)
    for node in nodes:
        which = {i for i, x in enumerate(node.inputs) if x in mapped}
        if not which or node.outputs[0] in mapped:
            continue
        rule = BATCHING.get(operator_name(node))
        if rule is None:
            raise SourceError(
                f"several targets: no batching rule for operator {operator_name(node)} (node "
                f"{node.name!r}); export with one target, or add a rule to onnxplain.export.vmap"
            )
        inputs: Inputs = [mapped.get(x, x) if x is not None else None for x in node.inputs]
        results = rule(op, node, inputs, which, K)
        outputs = [results] if isinstance(results, ir.Value) else results
        mapped.update(zip(node.outputs, outputs, strict=True))
    return mapped


def _emit(op: OpBuilder, node: Node, inputs: Inputs, **changed: object) -> Outputs:
    attributes = {name: attr.value for name, attr in node.attributes.items()} | changed
    return op.builder.call_op(
        node.op_type, inputs, attributes, version=op.version, outputs=len(node.outputs)
    )


def _elementwise(
    op: OpBuilder, node: Node, inputs: Inputs, mapped: set[int], K: ir.Value
) -> Outputs:
    """Broadcasting does it, once the ranks behind the new axis agree."""
    for i in mapped:
        if (missing := rank(node.outputs[0]) - rank(node.inputs[i])) > 0:
            inputs[i] = op.Unsqueeze(inputs[i], list(range(1, 1 + missing)))
    return _emit(op, node, inputs)


def _matmul(op: OpBuilder, node: Node, inputs: Inputs, mapped: set[int], K: ir.Value) -> Outputs:
    """As elementwise, which would be wrong of a vector at the right or with a stack of matrices."""
    if rank(node.inputs[1]) == 1 or (rank(node.inputs[0]) == 1 and rank(node.inputs[1]) > 2):
        raise SourceError(f"several targets: MatMul {node.name!r} of a vector; unsqueeze it first")
    return _elementwise(op, node, inputs, mapped, K)


def _cast_like(op: OpBuilder, node: Node, inputs: Inputs, mapped: set[int], K: ir.Value) -> Outputs:
    """The second input gives its dtype alone."""
    if 0 not in mapped:
        return _repeated(op, node.outputs[0], K)
    return op.CastLike(inputs[0], node.inputs[1])


def _repeated(op: OpBuilder, value: ir.Value, K: ir.Value) -> ir.Value:
    return op.Expand(value, op.Concat(K, op.Shape(value), axis=0))


def _merged(op: OpBuilder, node: Node, inputs: Inputs, mapped: set[int], K: ir.Value) -> Outputs:
    """K joins the batch for operators with a fixed layout [N, C, …] and constant other inputs."""
    if mapped != {0}:
        raise SourceError(f"several targets: {node.op_type} {node.name!r} with a mapped weight")
    x, y = node.inputs[0], node.outputs[0]
    batched = _emit(op, node, [op.Reshape(inputs[0], [-1, *_tail(x)]), *inputs[1:]])
    return op.Reshape(batched, op.Concat(K, [-1, *_tail(y)], axis=0))


def _gemm(op: OpBuilder, node: Node, inputs: Inputs, mapped: set[int], K: ir.Value) -> Outputs:
    """K joins the rows of A where they stay rows; else the matrix product that a Gemm is."""
    if len(inputs) > 2:
        raise SourceError(f"several targets: Gemm {node.name!r} with three inputs")
    if mapped == {0} and not attribute(node, "transA", 0):
        return _merged(op, node, inputs, mapped, K)
    for i, name in enumerate(("transA", "transB")):
        if attribute(node, name, 0):
            inputs[i] = op.Transpose(inputs[i], perm=[0, 2, 1] if i in mapped else [1, 0])
    return op.Mul(op.MatMul(*inputs), node.attributes.get_float("alpha", 1.0))


def _tail(value: ir.Value) -> list[int]:
    assert value.shape is not None
    sizes = list(value.shape)[1:]
    if not all(isinstance(size, int) for size in sizes):
        raise SourceError(f"several targets: {value.name!r} has a dynamic size {value.shape}")
    return [int(size) for size in sizes]  # type: ignore[arg-type]


def _along_axis(
    op: OpBuilder, node: Node, inputs: Inputs, mapped: set[int], K: ir.Value
) -> Outputs:
    """An `axis` attribute counted from the end stays where it is; all data inputs need the axis."""
    if node.op_type != "Concat" and mapped != {0}:
        raise SourceError(f"several targets: {node.op_type} {node.name!r} by mapped indices")
    x = node.inputs[min(mapped)]
    if node.op_type == "Concat":
        every: list[ir.Value] = [v for v in inputs if v is not None]
        inputs = [v if i in mapped else _repeated(op, v, K) for i, v in enumerate(every)]
    return _emit(op, node, inputs, axis=axis_from_end(node, 0, x))


def _by_axes_input(index: int) -> BatchingRule:
    """Operators whose input `index` lists axes: count them from the end of the data's rank."""

    def rule(op: OpBuilder, node: Node, inputs: Inputs, mapped: set[int], K: ir.Value) -> Outputs:
        if mapped != {0}:
            raise SourceError(f"several targets: {node.op_type} {node.name!r} by mapped numbers")
        of = node.outputs[0] if node.op_type == "Unsqueeze" else node.inputs[0]
        axes = constant_of(node.inputs[index] if len(inputs) > index else None, "the axes")
        if attribute(node, "noop_with_empty_axes", 0) and (axes is None or not axes.size):
            return _emit(op, node, inputs)
        given = _all_axes(node) if axes is None else axes.tolist()
        inputs = [*inputs, *[None] * (index + 1 - len(inputs))]
        inputs[index] = integers(op, np.array(axes_from_end(given, rank(of))))
        return _emit(op, node, inputs)

    return rule


def _all_axes(node: Node) -> list[int]:
    """The axes that an operator takes when it is given none."""
    x = node.inputs[0]
    if node.op_type == "Squeeze":
        return [i for i, size in enumerate(dims(x)) if size == 1]
    return list(range(size_of(node.inputs[1], 0) if node.op_type == "Slice" else rank(x)))


def _transpose(op: OpBuilder, node: Node, inputs: Inputs, mapped: set[int], K: ir.Value) -> Outputs:
    perm = node.attributes.get_ints("perm", list(reversed(range(rank(node.inputs[0])))))
    return _emit(op, node, inputs, perm=[0, *(axis + 1 for axis in perm)])


def _reshape(op: OpBuilder, node: Node, inputs: Inputs, mapped: set[int], K: ir.Value) -> Outputs:
    """A 0 in the shape copies the size at its own place, which the new axis moves with it."""
    return op.Reshape(inputs[0], op.Concat(K, inputs[1], axis=0))


BATCHING: dict[str, BatchingRule] = {
    **dict.fromkeys(["Add", "Sub", "Mul", "Div", "Sum", "Max", "Min", "Pow"], _elementwise),
    **dict.fromkeys(["Neg", "Abs", "Sign", "Exp", "Sqrt", "Reciprocal"], _elementwise),
    **dict.fromkeys(["Relu", "Sigmoid", "Cast", "Identity", "Expand"], _elementwise),
    **dict.fromkeys(["Greater", "Less", "Equal", "And", "Or", "Not", "Where"], _elementwise),
    "CastLike": _cast_like,
    "MatMul": _matmul,
    "Gemm": _gemm,
    **dict.fromkeys(["Conv", "ConvTranspose", "AveragePool"], _merged),
    **dict.fromkeys(["SpaceToDepth", "DepthToSpace"], _merged),
    **dict.fromkeys(["Concat", "Split", "Gather"], _along_axis),
    **dict.fromkeys(["ReduceSum", "ReduceMean", "ReduceMax"], _by_axes_input(1)),
    **dict.fromkeys(["Squeeze", "Unsqueeze"], _by_axes_input(1)),
    **dict.fromkeys(["Pad", "Slice"], _by_axes_input(3)),
    "Transpose": _transpose,
    "Reshape": _reshape,
}
