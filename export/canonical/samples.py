"""Do the samples of an open batch stay apart? Proof by induction over the nodes, axis by axis.

Each value that depends on the inputs has the batch on one of its axes, which moves as operators
move it. An operator that reads along that axis, or whose operands have it in different places, may
mix samples; so may one that nothing here is known of.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

import onnx_ir as ir

from onnxplain.export.autodiff import operator_name
from onnxplain.export.operators import Axes, row_of
from onnxplain.export.tensors import array_of, attribute, axis_of, dims, input_of, rank

At: TypeAlias = Mapping[ir.Value | None, int]
"""Value → its batch axis. What is not in it has the same for all samples."""

Joined: TypeAlias = tuple[int, int]
"""How many elements are joined with the batch on its axis, before it and behind it."""

Move: TypeAlias = Callable[[ir.Node, At], int | None]
"""The batch axis of a node's results; None where it may mix samples."""


def mixing(
    nodes: Iterable[ir.Node], roots: Iterable[ir.Value], end: ir.Value, batch: ir.SymbolicDim
) -> ir.Node | None:
    """The first node that may mix a batch's samples, or has it elsewhere than first in the end.

    Args:
        nodes: those by which the end depends on the roots, in graph order.
        roots: values whose first axis is the batch.
        end: a value whose first axis is to be it, too.
        batch: its size.
    """
    at: dict[ir.Value | None, int] = dict.fromkeys(roots, 0)
    joined: dict[ir.Value | None, Joined] = dict.fromkeys(roots, (1, 1))
    for node in nodes:
        row, y = row_of(operator_name(node)), node.outputs[0]
        move = _OF_NAME.get(node.op_type) or _MOVES.get(row.axes)
        known = all(v is None or v.shape is not None for v in (*node.inputs, y))
        around = {joined[x] for x in node.inputs if x in at}
        if move is None or not known or len(around) != 1:
            return node
        with_it = around.pop()
        if row.axes is Axes.RESHAPE:
            axis, with_it = _reshaped(node, at, with_it) or (None, with_it)
        else:
            axis = move(node, at)
        if axis is None or (with_it == (1, 1) and dims(y)[axis] != batch):
            return node
        if y is end and (axis, with_it) != (0, (1, 1)):
            return node
        at.update(dict.fromkeys(node.outputs, axis))
        joined.update(dict.fromkeys(node.outputs, with_it))
    return None


def _alone(node: ir.Node, at: At) -> int | None:
    """The batch axis of the first input, where no other has one."""
    others = any(x in at for x in node.inputs[1:])
    return None if others else at.get(node.inputs[0])


def _same_place(node: ir.Node, at: At) -> int | None:
    """The batch of all inputs that have one is at the same place, counted from the end."""
    places = {at[x] - rank(x) for x in node.inputs if x is not None and x in at}
    return places.pop() + rank(node.outputs[0]) if len(places) == 1 else None


def _images(node: ir.Node, at: At) -> int | None:
    return 0 if _alone(node, at) == 0 else None


def _along(node: ir.Node, at: At) -> int | None:
    """Not along the batch; ArgMax may leave its axis out."""
    x, batch = input_of(node), _alone(node, at)
    axis = axis_of(node, x) + rank(x)
    if batch is None or batch == axis:
        return None
    left_out = rank(node.outputs[0]) < rank(x) and axis < batch
    return batch - left_out


def _gather(node: ir.Node, at: At) -> int | None:
    """The axes of the indices stand where that of the data was."""
    data, index = input_of(node), input_of(node, 1)
    axis = axis_of(node, data) + rank(data)
    if data not in at:
        return axis + at[index]
    if index in at or at[data] == axis:
        return None
    return at[data] if at[data] < axis else at[data] + rank(index) - 1


def _normalised(node: ir.Node, at: At) -> int | None:
    """Over all axes from `axis` on."""
    x, batch = input_of(node), _alone(node, at)
    first = attribute(node, "axis", -1) % rank(x)
    return batch if batch is not None and batch < first else None


def _l2_normalised(node: ir.Node, at: At) -> int | None:
    x, batch = input_of(node), _alone(node, at)
    axes = [axis % rank(x) for axis in node.attributes.get_ints("axes")]
    return None if batch in axes else batch


def _concatenated(node: ir.Node, at: At) -> int | None:
    """And all inputs have the batch: what has none may be as long as one sample alone."""
    batch, y = _same_place(node, at), node.outputs[0]
    every = all(x in at for x in node.inputs)
    return None if not every or batch == attribute(node, "axis", 0) % rank(y) else batch


def _by_elements(node: ir.Node, at: At) -> int | None:
    """Of GatherElements and ScatterElements, whose indices and data are alike."""
    batch, x = _same_place(node, at), input_of(node)
    every = all(v in at for v in node.inputs)
    return None if not every or batch == attribute(node, "axis", 0) % rank(x) else batch


def _listed(node: ir.Node, at: At) -> int | None:
    """The axes that the second input lists are reduced, left out or put in."""
    batch, x, y = _alone(node, at), input_of(node), node.outputs[0]
    listed = array_of(node.inputs[1]) if len(node.inputs) > 1 else None
    if batch is None or listed is None or not listed.size:
        return None
    if node.op_type == "Unsqueeze":
        added = {int(axis) % rank(y) for axis in listed}
        return [axis for axis in range(rank(y)) if axis not in added][batch]
    axes = {int(axis) % rank(x) for axis in listed}
    kept = rank(y) == rank(x)
    return None if batch in axes else batch - (0 if kept else sum(a < batch for a in axes))


def _slice(node: ir.Node, at: At) -> int | None:
    batch, x = _alone(node, at), input_of(node)
    axes = array_of(node.inputs[3]) if len(node.inputs) > 3 else None
    return None if axes is None or batch in [int(a) % rank(x) for a in axes] else batch


def _matrices(node: ir.Node, at: At) -> int | None:
    batch = _alone(node, at)
    return batch if batch is not None and batch < rank(input_of(node)) - 2 else None


def _matmul(node: ir.Node, at: At) -> int | None:
    """Not along an axis that is summed over, nor the rows of one and the columns of the other."""
    a, b = input_of(node), input_of(node, 1)
    summed = {a: rank(a) - 1, b: max(rank(b) - 2, 0)}
    if any(at[x] == summed[x] for x in (a, b) if x in at) or 1 in (rank(a), rank(b)):
        return None
    return _same_place(node, at)


def _gemm(node: ir.Node, at: At) -> int | None:
    """The rows of the first matrix, and of what is added."""
    rows = attribute(node, "transA", 0)
    bias_too = len(node.inputs) < 3 or node.inputs[2] not in at or at[node.inputs[2]] == 0
    return 0 if at.get(node.inputs[0]) == rows and node.inputs[1] not in at and bias_too else None


def _einsum(node: ir.Node, at: At) -> int | None:
    """One letter in all operands that have a batch, which the result keeps."""
    left, arrow, result = node.attributes.get_string("equation").replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow or "." in left:
        return None
    pairs = list(zip(terms, node.inputs, strict=True))
    letters = {term[at[x]] for term, x in pairs if x in at}
    letter = letters.pop()
    alone = all(x in at or letter not in term for term, x in pairs)
    return result.find(letter) if not letters and alone and letter in result else None


def _flattened(node: ir.Node, at: At) -> int | None:
    return _images(node, at) if attribute(node, "axis", 1) == 1 else None


def _expanded(node: ir.Node, at: At) -> int | None:
    return None if _alone(node, at) is None else _same_place(node, at)


def _transpose(node: ir.Node, at: At) -> int | None:
    reverse = list(reversed(range(rank(input_of(node)))))
    return list(node.attributes.get_ints("perm", reverse)).index(at[node.inputs[0]])


def _reshaped(node: ir.Node, at: At, joined: Joined) -> tuple[int, Joined] | None:
    """The batch axis, and what is joined with the batch: as many elements stand before and behind
    it as did. So attention's [N, heads, …] → [N · heads, …] keeps samples apart."""
    x, y, batch = input_of(node), node.outputs[0], _alone(node, at)
    if batch is None:
        return None
    sides = _product(dims(x)[:batch]), _product(dims(x)[batch + 1 :])
    for axis, size in enumerate(dims(y)):
        now = _product(dims(y)[:axis]), _product(dims(y)[axis + 1 :])
        if isinstance(size, int) or 0 in (*sides, *now):
            continue
        before, behind = (n * joined[i] for i, n in enumerate(sides))
        if before % now[0] == behind % now[1] == 0:
            return axis, (before // now[0], behind // now[1])
    return None


def _product(sizes: Sequence[int | ir.SymbolicDim]) -> int:
    """0 where one is open."""
    return math.prod(n if isinstance(n, int) else 0 for n in sizes)


def _pad(node: ir.Node, at: At) -> int | None:
    batch, pads = _alone(node, at), array_of(node.inputs[1])
    if batch is None or pads is None or (len(node.inputs) > 3 and node.inputs[3] is not None):
        return None
    return None if pads[batch] or pads[batch + len(pads) // 2] else batch


def _recurrent(node: ir.Node, at: At) -> int | None:
    """[steps, batch, …] becomes [steps, directions, batch, …], where no last states are read."""
    states = [at.get(x, 1) for x in node.inputs[1:]]
    others = any(y.uses() or y.is_graph_output() for y in node.outputs[1:])
    plain = attribute(node, "layout", 0) == 0 and set(states) <= {1} and not others
    return 2 if plain and at.get(node.inputs[0], 1) == 1 else None


_OF_NAME: Mapping[str, Move] = {
    **{"Gather": _gather, "LayerNormalization": _normalised, "RMSNormalization": _normalised},
    **{"L2Normalization": _l2_normalised, "LSTM": _recurrent, "GRU": _recurrent},
}

_MOVES: Mapping[Axes, Move] = {
    Axes.ELEMENTWISE: _same_place,
    Axes.IMAGES: _images,
    Axes.WINDOW: _images,
    Axes.ALONG: _along,
    Axes.CONCATENATION: _concatenated,
    Axes.INDICES: _by_elements,
    Axes.LISTED: _listed,
    Axes.SLICE: _slice,
    Axes.MATRICES: _matrices,
    Axes.MATRIX_PRODUCT: _matmul,
    Axes.GEMM: _gemm,
    Axes.EINSUM: _einsum,
    Axes.TRANSPOSITION: _transpose,
    Axes.RESHAPE: _alone,
    Axes.FLATTENING: _flattened,
    Axes.EXPANSION: _expanded,
    Axes.PADDING: _pad,
}
