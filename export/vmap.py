"""K targets, one forward: repeat what depends on the cotangents along a new leading axis.

As `jax.vmap` would: every value computed from the seeds gets an axis K before all others, every
node that computes it is rewritten as its operator's axes want it (`BATCHING`), and the forward
pass, with no such axis, is shared. Elementwise operators broadcast over it, so a gate is computed
once.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.errors import SourceError
from onnxplain.export.autodiff import SHAPES, Node, operator_name
from onnxplain.export.operators import Axes, BatchingRule, Inputs, Outputs, row_of
from onnxplain.export.provenance import named_after, prefix_of
from onnxplain.export.replay import again
from onnxplain.export.subgraphs import operands
from onnxplain.export.tensors import (
    array_of,
    attribute,
    axes_from_end,
    axis_of,
    constant_of,
    dims,
    integers,
    is_known,
    rank,
    size_of,
)
from onnxplain.kernels.calls import batched_call
from onnxplain.kernels.functions import DOMAIN


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
        which = {i for i, x in enumerate(operands(node)) if x in mapped}
        if not which or node.outputs[0] in mapped or node.op_type in SHAPES:
            continue  # a shape is that of one target: rules and rows want it so
        row = row_of(operator_name(node))
        rule = batched_call if node.domain == DOMAIN else row.batching or BATCHING.get(row.axes)
        if rule is None:
            raise SourceError(
                f"several targets: no batching rule for operator {operator_name(node)} (node "
                f"{node.name!r}); export with one target, or say what its axes are: register_vjp("
                f'"{operator_name(node)}", axes=…)'
            )
        inputs: Inputs = [mapped.get(x, x) if x is not None else None for x in operands(node)]
        with named_after(op, prefix_of(node.name)):
            results = rule(op, node, inputs, which, K)
        outputs = [results] if isinstance(results, ir.Value) else results
        mapped.update(zip(node.outputs, outputs, strict=True))
    return mapped


def _elementwise(
    op: OpBuilder, node: Node, inputs: Inputs, mapped: set[int], K: ir.Value
) -> Outputs:
    """Broadcasting does it, once the ranks behind the new axis agree."""
    for i in mapped:
        if (missing := rank(node.outputs[0]) - rank(node.inputs[i])) > 0:
            inputs[i] = op.Unsqueeze(inputs[i], list(range(1, 1 + missing)))
    return again(op, node, inputs)


def _matmul(op: OpBuilder, node: Node, inputs: Inputs, mapped: set[int], K: ir.Value) -> Outputs:
    """As elementwise, which would be wrong of a vector at the right or with a stack of matrices."""
    if rank(node.inputs[1]) == 1 or (rank(node.inputs[0]) == 1 and rank(node.inputs[1]) > 2):
        raise SourceError(f"several targets: MatMul {node.name!r} of a vector; unsqueeze it first")
    return _elementwise(op, node, inputs, mapped, K)


def cast_like(op: OpBuilder, node: Node, inputs: Inputs, mapped: set[int], K: ir.Value) -> Outputs:
    """The second input gives its dtype alone."""
    if 0 not in mapped:
        return repeated(op, node.outputs[0], K)
    return op.CastLike(inputs[0], node.inputs[1])


def repeated(op: OpBuilder, value: ir.Value, K: ir.Value) -> ir.Value:
    """The same K times, along a new leading axis."""
    return op.Expand(value, op.Concat(K, op.Shape(value), axis=0))


def _merged(op: OpBuilder, node: Node, inputs: Inputs, mapped: set[int], K: ir.Value) -> Outputs:
    """K joins the batch for operators with a fixed layout [N, C, …] and constant other inputs."""
    if mapped != {0}:
        raise SourceError(f"several targets: {node.op_type} {node.name!r} with a mapped weight")
    x, y = node.inputs[0], node.outputs[0]
    given = inputs[0]
    assert given is not None
    joined = op.Reshape(given, _behind(op, given, 2, x))
    (batched,) = again(op, node, [joined, *inputs[1:]])
    return op.Reshape(batched, op.Concat(K, _behind(op, batched, 1, y), axis=0))


def _resize(op: OpBuilder, node: Node, inputs: Inputs, mapped: set[int], K: ir.Value) -> Outputs:
    """By scales alone, the batch as it is; the sizes of all axes would name the batch without K."""
    scales = constant_of(node.inputs[2], "the scales of Resize")
    if scales is None or scales[0] != 1:
        raise SourceError(f"several targets: Resize {node.name!r} of the batch, or to sizes")
    return _merged(op, node, inputs, mapped, K)


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


def _behind(op: OpBuilder, value: ir.Value, first: int, like: ir.Value) -> Any:
    """-1, and the sizes behind the batch, which is the axis before `first`: those of `like`, or
    where they are open, what the value turns out to have."""
    sizes = dims(like)[1:]
    if all(map(is_known, sizes)):
        return [-1, *sizes]
    return op.Concat([-1], op.Shape(value, start=first), axis=0)


def _along_axis(
    op: OpBuilder, node: Node, inputs: Inputs, mapped: set[int], K: ir.Value
) -> Outputs:
    """An `axis` attribute counted from the end stays where it is."""
    if mapped != {0}:
        raise SourceError(f"several targets: {node.op_type} {node.name!r} by mapped indices")
    return again(op, node, inputs, axis=axis_of(node, node.inputs[0]))


def _all_along_axis(
    op: OpBuilder, node: Node, inputs: Inputs, mapped: set[int], K: ir.Value
) -> Outputs:
    """The same where all inputs need the axis K."""
    every = _every(op, inputs, mapped, K)
    return again(op, node, every, axis=axis_of(node, node.inputs[min(mapped)]))


def _every(op: OpBuilder, inputs: Inputs, mapped: set[int], K: ir.Value) -> Inputs:
    given = [x for x in inputs if x is not None]
    return [x if i in mapped else repeated(op, x, K) for i, x in enumerate(given)]


def _by_tuples(op: OpBuilder, node: Node, inputs: Inputs, mapped: set[int], K: ir.Value) -> Outputs:
    """The indexed axes are the first ones, so K goes behind all others."""
    if 1 in mapped:
        raise SourceError(f"several targets: {node.op_type} {node.name!r} by mapped indices")
    data = _every(op, [x for i, x in enumerate(inputs) if i != 1], {i and i - 1 for i in mapped}, K)
    values = [x for i, x in enumerate(node.inputs) if i != 1]
    last = [
        op.Transpose(x, perm=[*range(1, rank(value) + 1), 0])
        for x, value in zip(data, values, strict=True)
    ]
    (made,) = again(op, node, [last[0], inputs[1], *last[1:]])
    axes = rank(node.outputs[0])
    return op.Transpose(made, perm=[axes, *range(axes)])


def _cumulative(
    op: OpBuilder, node: Node, inputs: Inputs, mapped: set[int], K: ir.Value
) -> Outputs:
    axis = constant_of(node.inputs[1], "the axis of CumSum")
    if mapped != {0} or axis is None:
        raise SourceError(f"several targets: CumSum {node.name!r} along a mapped axis")
    at = axes_from_end([int(axis.reshape(()))], rank(node.inputs[0]))[0]
    return again(op, node, [inputs[0], integers(op, np.array(at))])


def _einsum(op: OpBuilder, node: Node, inputs: Inputs, mapped: set[int], K: ir.Value) -> Outputs:
    """One more letter, before those of the mapped operands and of the result."""
    equation = node.attributes.get_string("equation").replace(" ", "")
    if "..." in equation or "->" not in equation:
        raise SourceError(f"several targets: Einsum {node.name!r} must spell out {equation!r}")
    left, result = equation.split("->")
    letter = next(c for c in string.ascii_letters if c not in equation)
    terms = [letter * (i in mapped) + term for i, term in enumerate(left.split(","))]
    return again(op, node, inputs, equation=f"{','.join(terms)}->{letter}{result}")


def _by_axes_input(index: int) -> BatchingRule:
    """Operators whose input `index` lists axes: count them from the end of the data's rank."""

    def rule(op: OpBuilder, node: Node, inputs: Inputs, mapped: set[int], K: ir.Value) -> Outputs:
        if mapped != {0}:
            raise SourceError(f"several targets: {node.op_type} {node.name!r} by mapped numbers")
        of = node.outputs[0] if node.op_type == "Unsqueeze" else node.inputs[0]
        axes = constant_of(node.inputs[index] if len(inputs) > index else None, "the axes")
        if attribute(node, "noop_with_empty_axes", 0) and (axes is None or not axes.size):
            return again(op, node, inputs)
        given = _all_axes(node) if axes is None else axes.tolist()
        inputs = [*inputs, *[None] * (index + 1 - len(inputs))]
        inputs[index] = integers(op, np.array(axes_from_end(given, rank(of))))
        return again(op, node, inputs)

    return rule


def _pad(op: OpBuilder, node: Node, inputs: Inputs, mapped: set[int], K: ir.Value) -> Outputs:
    """None along K; every axis is told so (see `tensors.pad_axis`)."""
    pads = array_of(node.inputs[1])
    if mapped != {0}:
        raise SourceError(f"several targets: Pad {node.name!r} by mapped numbers")
    axes = constant_of([*node.inputs, None, None][3], "the axes of Pad")
    if pads is None and axes is None:  # computed of open sizes
        each, r = inputs[1], rank(node.inputs[0])
        before, after = (op.Slice(each, [part * r], [(part + 1) * r]) for part in (0, 1))
        return again(op, node, [inputs[0], op.Concat([0], before, [0], after, axis=0), *inputs[2:]])
    assert pads is not None
    whole = np.zeros([2, 1 + rank(node.inputs[0])], np.int64)
    given = range(rank(node.inputs[0])) if axes is None else axes.tolist()
    whole[:, axes_from_end(given, rank(node.inputs[0]))] = pads.reshape(2, -1)
    value = [v for v in inputs[2:3] if v is not None]
    return again(op, node, [inputs[0], integers(op, whole.reshape(-1)), *value])


def _all_axes(node: Node) -> list[int]:
    """The axes that an operator takes when it is given none."""
    x = node.inputs[0]
    if node.op_type == "Squeeze":
        return [i for i, size in enumerate(dims(x)) if size == 1]
    return list(range(size_of(node.inputs[1], 0) if node.op_type == "Slice" else rank(x)))


def _transpose(op: OpBuilder, node: Node, inputs: Inputs, mapped: set[int], K: ir.Value) -> Outputs:
    perm = node.attributes.get_ints("perm", list(reversed(range(rank(node.inputs[0])))))
    return again(op, node, inputs, perm=[0, *(axis + 1 for axis in perm)])


def _reshape(op: OpBuilder, node: Node, inputs: Inputs, mapped: set[int], K: ir.Value) -> Outputs:
    """A 0 in the shape copies the size at its own place, which the new axis moves with it."""
    return op.Reshape(inputs[0], op.Concat(K, inputs[1], axis=0))


BATCHING: Mapping[Axes, BatchingRule] = {
    Axes.ELEMENTWISE: _elementwise,
    Axes.EXPANSION: _elementwise,
    Axes.MATRICES: _elementwise,
    Axes.MATRIX_PRODUCT: _matmul,
    Axes.GEMM: _gemm,
    Axes.EINSUM: _einsum,
    Axes.IMAGES: _merged,
    Axes.WINDOW: _merged,
    Axes.ALONG: _along_axis,
    Axes.CONCATENATION: _all_along_axis,
    Axes.INDICES: _all_along_axis,
    Axes.TUPLES: _by_tuples,
    Axes.RUNNING: _cumulative,
    Axes.LISTED: _by_axes_input(1),
    Axes.SLICE: _by_axes_input(3),
    Axes.RESIZE: _resize,
    Axes.PADDING: _pad,
    Axes.TRANSPOSITION: _transpose,
    Axes.RESHAPE: _reshape,
}
