"""Sequences of tensors, written out: what is taken from them is one of their tensors, or all.

They are where each has a known number of tensors, and each place is a constant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from onnxplain.export.canonical.control_flow import inline
from onnxplain.export.canonical.emit import Emitted, Emitter, check_rounds, integers, replace
from onnxplain.export.tensors import array_of, attribute, dims

Tensors: TypeAlias = list[ir.Value]


def write_out_sequences(graph: ir.Graph) -> bool:
    """Whether anything was read from a sequence, in whose place its tensors now stand."""
    known: dict[ir.Value, Tensors] = {}
    count = 0
    for node in list(graph):
        if node.domain != "":
            continue
        first = None if not node.inputs or node.inputs[0] is None else known.get(node.inputs[0])
        if node.op_type in _READ and first is not None:
            count += _READ[node.op_type](node, first)
        elif (made := _made(graph, node, first, known)) is not None:
            known.update(zip(node.outputs, made, strict=True))
    return count > 0


# ----- what reads a sequence -----


def _at(node: ir.Node, tensors: Tensors) -> bool:
    place = _place(node.inputs[1], len(tensors))
    if place is None:
        return False
    return _replaced(node, lambda emit: tensors[place])


def _length(node: ir.Node, tensors: Tensors) -> bool:
    return _replaced(node, lambda emit: emit.constant(np.array(len(tensors))))


def _concatenated(node: ir.Node, tensors: Tensors) -> bool:
    axis = attribute(node, "axis", 0)

    def form(emit: Emitter) -> Emitted:
        parts = tensors
        if attribute(node, "new_axis", 0):
            parts = [emit("Unsqueeze", x, integers(axis)) for x in tensors]
        return emit("Concat", *parts, axis=axis)

    return bool(tensors) and _replaced(node, form)


_READ: Mapping[str, Callable[[ir.Node, Tensors], bool]] = {
    "SequenceAt": _at,
    "SequenceLength": _length,
    "ConcatFromSequence": _concatenated,
}


def _replaced(node: ir.Node, form: Callable[[Emitter], Emitted]) -> bool:
    def kept(emit: Emitter, _: ir.Node) -> Emitted:
        """A graph's output keeps its name: no tensor that is something else takes its place."""
        made = form(emit)
        return emit("Identity", made) if isinstance(made, ir.Value) else made

    replace(node, kept)
    return True


def _place(value: ir.Value | None, count: int, behind: int = 0) -> int | None:
    """The index that a place in a sequence of so many is, or `behind` it; None if it is not known,
    or there is no such place."""
    given = array_of(value)
    if given is None or not -count <= given < count + behind:
        return None
    return int(given) + (count if given < 0 else 0)


# ----- what makes a sequence -----


def _made(
    graph: ir.Graph, node: ir.Node, first: Tensors | None, known: Mapping[ir.Value, Tensors]
) -> list[Tensors] | None:
    """The tensors of each of the sequences that a node makes, or None where they are not known."""
    if node.op_type == "SequenceEmpty":
        return [[]]
    if node.op_type == "SequenceConstruct":
        return [[x for x in node.inputs if x is not None]]
    if node.op_type == "SplitToSequence":
        return _parts(graph, node)
    if first is None:
        return None
    if node.op_type == "SequenceInsert":
        tensor, place = [*node.inputs[1:], None][:2]
        at = len(first) if place is None else _place(place, len(first), behind=1)
        return None if at is None or tensor is None else [[*first[:at], tensor, *first[at:]]]
    if node.op_type == "SequenceErase":
        place = [*node.inputs, None][1]
        at = len(first) - 1 if place is None else _place(place, len(first))
        return None if at is None or not first else [[*first[:at], *first[at + 1 :]]]
    if node.op_type == "SequenceMap":
        return _mapped(graph, node, first, known)
    return [first] if node.op_type == "Identity" else None


def _parts(graph: ir.Graph, node: ir.Node) -> list[Tensors] | None:
    x, given = [*node.inputs, None][:2]
    axis = attribute(node, "axis", 0)
    if x is None or x.shape is None:
        return None
    size, sizes = dims(x)[axis], array_of(given)
    if given is not None and sizes is None:
        return None
    if sizes is None or sizes.ndim == 0:
        if not isinstance(size, int) or size == 0:
            return None
        each = 1 if sizes is None else int(sizes)
        if each < 1:
            return None
        sizes = np.diff([*range(0, size, each), size])
    check_rounds(node, len(sizes))
    emit = Emitter()
    parts = [x]
    if len(sizes) > 1:
        parts = list(emit.many("Split", len(sizes), x, integers(*sizes), axis=axis))
    if given is None and not attribute(node, "keepdims", 1):
        parts = [emit("Squeeze", part, integers(axis)) for part in parts]
    graph.insert_before(node, emit.nodes)
    return [parts]


def _mapped(
    graph: ir.Graph, node: ir.Node, first: Tensors, known: Mapping[ir.Value, Tensors]
) -> list[Tensors] | None:
    """The body's results for each tensor of the first sequence; other tensors are given to all."""
    body = node.attributes["body"].as_graph()
    check_rounds(node, len(first))
    others = [None if x is None else known.get(x, [x] * len(first)) for x in node.inputs[1:]]
    if any(each is None or len(each) != len(first) for each in others):
        return None
    rounds = zip(first, *(each for each in others if each is not None), strict=True)
    results: list[Sequence[ir.Value | None]] = [
        inline(graph, node, body, given, f"tensor_{i}") for i, given in enumerate(rounds)
    ]
    return [[y for y in each if y is not None] for each in zip(*results, strict=True)] or [
        [] for _ in node.outputs
    ]
