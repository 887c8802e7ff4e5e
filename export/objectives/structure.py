"""What a graph shows of an output: which of its entries a Sigmoid ends.

An output's columns are followed backwards through what only moves them, and nothing is told by a
size or a name alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from onnxplain.export.tensors import (
    array_of,
    attribute,
    axis_of,
    dims,
    input_of,
    rank,
    usual_size_of,
)


@dataclass(frozen=True)
class Place:
    """An entry along an axis of a value."""

    value: ir.Value
    axis: int
    index: int


@dataclass(frozen=True)
class End:
    """Where an entry of an output's axis comes from, in front of all that moves it.

    Attributes:
        activation: "sigmoid"; "softmax", along that axis; "product" of such; "kind", of a whole
            number; or "".
        places: the value whose entry it is, which is that of the activation if there is one; of
            several levels or heads, one each.
    """

    activation: str
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Part:
    """Neighbouring entries that come from one value, or from one of each level."""

    ends: tuple[End, ...]

    @property
    def size(self) -> int:
        return len(self.ends)

    @property
    def activation(self) -> str:
        return self.ends[0].activation

    @property
    def first(self) -> int:
        """Which entry of the value, at which the activation is, its first is."""
        return self.ends[0].places[0].index

    def before(self) -> list[Part]:
        """What the activation was given, in parts."""
        node, place = self.ends[0].places[0].value.producer(), self.ends[0].places[0]
        if node is None or node.inputs[0] is None or not self.activation:
            return [self]
        inside = ends(node.inputs[0], place.axis)[self.first : self.first + self.size]
        return joined(inside)


def parts(value: ir.Value, axis: int) -> list[Part]:
    """The entries along an axis, from the first on."""
    return joined(ends(value, axis))


def joined(entries: Sequence[End]) -> list[Part]:
    found: list[Part] = []
    for end in entries:
        if found and _next(found[-1].ends[-1]) == end:
            found[-1] = Part((*found[-1].ends, end))
        else:
            found.append(Part((end,)))
    return found


def _next(end: End) -> End:
    return End(end.activation, tuple(replace(p, index=p.index + 1) for p in end.places))


def activation_of(value: ir.Value, axis: int) -> str:
    """What all entries along an axis end in; "" where they end in several."""
    found = {end.activation for end in ends(value, axis)}
    return found.pop() if len(found) == 1 else ""


def ends(value: ir.Value, axis: int) -> list[End]:
    """Of each entry along an axis."""
    axis %= rank(value)
    node = value.producer()
    found = None
    if node is not None and node.inputs and node.inputs[0] is not None:
        if (activation := _activation(node, axis)) is not None:
            return _own(value, axis, activation)
        found = _MOVES[node.op_type](node, value, axis) if node.op_type in _MOVES else None
    return _own(value, axis) if found is None else found


def _own(value: ir.Value, axis: int, activation: str = "") -> list[End]:
    return [End(activation, (Place(value, axis, i),)) for i in range(usual_size_of(value, axis))]


def _activation(node: ir.Node, axis: int) -> str | None:
    x = node.inputs[0]
    assert x is not None
    if node.op_type == "Sigmoid":
        return "sigmoid"
    if node.op_type in ("Softmax", "LogSoftmax"):
        return "softmax" if axis_of(node, x) + rank(x) == axis else ""
    if node.op_type == "Cast" and x.dtype is not None and not x.dtype.is_floating_point():
        return "kind"
    if node.op_type == "Mul" and all(_is_probability(x, node, axis) for x in node.inputs):
        return "product"
    return None


def _is_probability(x: ir.Value | None, node: ir.Node, axis: int) -> bool:
    if x is None or x.shape is None or x.producer() is None:
        return False
    at = axis - rank(node.outputs[0])
    return rank(x) >= -at and activation_of(x, at) in ("sigmoid", "softmax")


Followed = list[End] | None


def _concatenated(node: ir.Node, value: ir.Value, axis: int) -> Followed:
    each = [ends(x, axis) for x in node.inputs if x is not None]
    if attribute(node, "axis", 0) % rank(value) == axis:
        return [end for one in each for end in one]
    return [_merged(of) for of in zip(*each, strict=True)]


def _merged(of: Sequence[End]) -> End:
    activations = {end.activation for end in of}
    places = tuple(place for end in of for place in end.places)
    return End(activations.pop() if len(activations) == 1 else "", places)


def _moved(node: ir.Node, value: ir.Value, axis: int) -> Followed:
    at = axis_before(node, value, axis)
    return None if at is None else ends(input_of(node), at)


def axis_before(node: ir.Node, value: ir.Value, axis: int) -> int | None:
    """Which axis of its operand an axis of the result of one of `MOVED` was; None if it was none.

    The same entries are in front of a reshape where what lies before or behind is as large.
    """
    x = input_of(node)
    if node.op_type == "Transpose":
        return int(node.attributes.get_ints("perm", list(reversed(range(rank(x)))))[axis])
    if node.op_type in ("Identity", "Cast"):
        return axis
    sizes, wanted = dims(x), dims(value)
    for at, size in enumerate(sizes):
        before = _volume(sizes[:at]) == _volume(wanted[:axis])
        behind = _volume(sizes[at + 1 :]) == _volume(wanted[axis + 1 :])
        if size == wanted[axis] and (before or behind):
            return at
    return None


def _volume(sizes: Sequence[int | ir.SymbolicDim]) -> tuple[int, list[str]]:
    symbols = sorted(str(n) for n in sizes if not isinstance(n, int))
    return math.prod(n for n in sizes if isinstance(n, int)), symbols


def _split(node: ir.Node, value: ir.Value, axis: int) -> Followed:
    whole = ends(input_of(node), axis)
    if attribute(node, "axis", 0) % rank(value) != axis:
        return whole
    outputs = list(node.outputs)
    start = sum(usual_size_of(y, axis) for y in outputs[: outputs.index(value)])
    return whole[start : start + usual_size_of(value, axis)]


def _sliced(node: ir.Node, value: ir.Value, axis: int) -> Followed:
    given = [array_of(x) for x in node.inputs[1:]]
    if any(array is None for array in given[:2]):
        return None
    starts, stops = (array.tolist() for array in given[:2] if array is not None)
    axes = list(range(len(starts))) if len(given) < 3 or given[2] is None else given[2].tolist()
    steps = [1] * len(starts) if len(given) < 4 or given[3] is None else given[3].tolist()
    found = ends(input_of(node), axis)
    for at, start, stop, step in zip(axes, starts, stops, steps, strict=True):
        if at % rank(value) == axis:
            found = found[start:stop:step] if step > 0 else []
    return found if len(found) == usual_size_of(value, axis) else None


def _gathered(node: ir.Node, value: ir.Value, axis: int) -> Followed:
    """Along another axis: which images, places or boxes."""
    x, index = input_of(node), node.inputs[1]
    assert index is not None
    along, wide = attribute(node, "axis", 0) % rank(x), rank(index)
    if node.op_type == "GatherElements":
        same = along != axis and usual_size_of(x, axis) == usual_size_of(value, axis)
        return ends(x, axis) if same else None
    if node.op_type == "GatherND":
        along, wide = attribute(node, "batch_dims", 0) + usual_size_of(index, -1) - 1, wide - 1
    if node.op_type == "Gather" and along <= axis < along + wide:
        picked = array_of(index)
        if picked is None or picked.ndim > 1:
            return None
        whole = ends(x, along)
        return [whole[i] for i in picked.reshape(-1).tolist()]
    if axis < along:
        return ends(x, axis) if node.op_type == "Gather" else None
    return None if axis < along + wide else ends(x, axis - wide + 1)


MOVED = ("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Cast")
"""Operators that put out all that they are given, each element once."""

_MOVES: Mapping[str, Callable[[ir.Node, ir.Value, int], Followed]] = {
    "Concat": _concatenated,
    "Split": _split,
    "Slice": _sliced,
    **dict.fromkeys(("Gather", "GatherElements", "GatherND"), _gathered),
    **dict.fromkeys(MOVED, _moved),
}
