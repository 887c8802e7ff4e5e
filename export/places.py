"""Which part of the image each element of a value is of, as the graph itself tells it.

A box is the part: intervals of samples, rows and columns, as one vector of six numbers, the lower
bounds and the upper ones negated, so that the smallest box around several is their minimum. NaN is
what depends on no part of the image: weights, class tokens. A value's boxes are an array of its
shape with that vector behind, of size 1 along axes where they do not change.

Movements (Reshape, Transpose, Slice, Gather, Concat …) carry the boxes as they would the elements;
windows, sums and products with weights put the boxes of what they read together; control flow, of
all that it and its bodies read. Where two meet that both depend on the image, `of` and `sees`
differ:

    of      x + attention(x) is of what x is of, the narrower of the two; attention is of what its
            queries are of
    sees    both, so that what comes out with NaN does not depend on what began
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TypeAlias

import numpy as np
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from onnxplain.export.autodiff import is_constant, operator_name
from onnxplain.export.canonical.ends import image_axes
from onnxplain.export.canonical.evaluate import concrete, evaluated
from onnxplain.export.operators import Axes, Kind, Linear, row_of
from onnxplain.export.subgraphs import operands
from onnxplain.export.tensors import attribute, input_of, rank, static
from onnxplain.export.windows import window_of

Boxes: TypeAlias = np.ndarray
"""[*axes, 6]: sample, row and column from which, and the negatives of those up to which."""

SAMPLES = 2
"""The size of an open batch here: enough to see which axis has it, and that it comes first."""


def pixels(image: ir.Value) -> Boxes:
    """Each pixel of itself."""
    *spatial, channels = image_axes(image)
    sizes = [*sizes_of(image)]
    sizes[channels] = 1
    at = np.indices(sizes)[[0, *spatial]].astype(float)
    return np.moveaxis(np.concatenate([at, -at]), 0, -1)


def of(
    graph: ir.Graph, nodes: Iterable[ir.Node], kept: Collection[ir.Value] | None = None
) -> dict[ir.Value, Boxes]:
    """What every value between the image and the ends of these nodes is of, or only those kept:
    each other's boxes, 96 bytes a pixel, go as soon as no later node reads them."""
    image = graph.inputs[0]
    walk = _Walk(graph.opset_imports[""], _narrower, _first)
    return walk.along(list(nodes), {image: pixels(image)}, kept)


def sees(
    graph: ir.Graph,
    nodes: Iterable[ir.Node],
    start: Mapping[ir.Value, Boxes],
    kept: Collection[ir.Value],
) -> dict[ir.Value, Boxes]:
    """What those kept depend on of the boxes at which some begin, which are not changed."""
    return _Walk(graph.opset_imports[""], np.fmin, _all).along(list(nodes), start, kept)


def _narrower(a: Boxes, b: Boxes) -> Boxes:
    """The one of two that lies within the other; else the smallest around both."""
    a_within, b_within = (a >= b).all(-1, keepdims=True), (b >= a).all(-1, keepdims=True)
    return np.where(a_within, a, np.where(b_within, b, np.fmin(a, b)))


def _first(candidates: Sequence[Boxes]) -> Boxes:
    """Of what a product of two is by each: the first that tells any two places apart."""
    return next((at for at in candidates if not _is_one_place(at)), candidates[0])


def _all(candidates: Sequence[Boxes]) -> Boxes:
    joined = candidates[0]
    for at in candidates[1:]:
        joined = np.fmin(joined, at)
    return joined


def _is_one_place(at: Boxes) -> bool:
    spatial = at[..., [1, 2, 4, 5]].reshape(-1, 4)
    return bool(np.array_equal(spatial, np.broadcast_to(spatial[0], spatial.shape), equal_nan=True))


def sizes_of(value: ir.Value) -> list[int]:
    sizes = concrete(value, SAMPLES)
    assert sizes is not None
    return sizes


@dataclass(frozen=True)
class _Walk:
    """Along the nodes of a graph, operator by operator as its row says."""

    opset: int
    meet: Callable[[Boxes, Boxes], Boxes]
    product: Callable[[Sequence[Boxes]], Boxes]

    def along(
        self,
        nodes: Sequence[ir.Node],
        start: Mapping[ir.Value, Boxes],
        kept: Collection[ir.Value] | None,
    ) -> dict[ir.Value, Boxes]:
        known = dict(start)
        for node, done in zip(nodes, _done(nodes, kept), strict=True):
            active = [x for x in operands(node) if x is not None and x in known]
            if active and not is_constant(node):
                try:
                    found = self._passed(node, known)
                except _UnclearError:
                    found = [_everywhere(node, y, [known[x] for x in active]) for y in node.outputs]
                for y, at in zip(node.outputs, found, strict=False):
                    if y not in start and y.shape is not None:
                        known[y] = _squeezed(at)
            for value in done:
                known.pop(value, None)
        return known

    def _passed(self, node: ir.Node, known: Mapping[ir.Value, Boxes]) -> list[Boxes]:
        row = row_of(operator_name(node))
        if any(y.shape is None or concrete(y, SAMPLES) is None for y in node.outputs):
            raise _UnclearError
        if row.axes is Axes.ELEMENTWISE:
            return [self._elementwise(node, known)]
        if row.kind is Kind.MOVE and row.linear is not Linear.NONE:
            return self._moved(node, known)
        first = known.get(node.inputs[0]) if node.inputs[0] is not None else None
        if (
            row.kind is Kind.NORMALISATION or row.axes is Axes.ALONG
        ):  # statistics say nothing of where
            return [_needed(first)] * len(node.outputs)
        if row.axes is Axes.WINDOW:
            return [_windowed(node, _needed(first), row.kind is Kind.CONVOLUTION)]
        if row.axes is Axes.RESIZE:
            return [_resized(node, _needed(first))]
        if row.axes is Axes.LISTED:
            return [self._reduced(node, _needed(first))]
        if row.axes is Axes.GEMM:
            return [_gemm(node, _needed(first), known)]
        if row.axes is Axes.MATRIX_PRODUCT:
            return [self._matrix_product(node, known)]
        if row.axes is Axes.EINSUM:
            return [self._einsum(node, known)]
        raise _UnclearError

    def _elementwise(self, node: ir.Node, known: Mapping[ir.Value, Boxes]) -> Boxes:
        y = node.outputs[0]
        read = [_aligned(known[x], y) for x in node.inputs if x is not None and x in known]
        joined = read[0]
        for at in read[1:]:
            joined = self.meet(joined, at)
        return joined

    def _moved(self, node: ir.Node, known: Mapping[ir.Value, Boxes]) -> list[Boxes]:
        """By the operator itself, which is given the numbers of the elements; 0 is of no place."""
        tables, feeds, count = [np.full((1, 6), np.nan)], dict[str, np.ndarray](), 1
        for x in node.inputs:
            if x is None:
                continue
            if x in known:
                table = known[x].reshape(-1, 6)
                number = np.arange(count, count + len(table)).reshape(known[x].shape[:-1])
                # Where the size of an axis is open, the boxes along it know better.
                shape: tuple[int, ...] = number.shape
                sizes = [n if n > 1 else m for n, m in zip(shape, sizes_of(x), strict=True)]
                feeds[str(x.name)] = np.broadcast_to(number, sizes)
                tables.append(table)
                count += len(table)
            elif x.dtype is not None and x.dtype.is_floating_point():
                if concrete(x, SAMPLES) is None:
                    raise _UnclearError
                feeds[str(x.name)] = np.zeros(sizes_of(x), np.int64)
            elif (array := evaluated(x, self.opset, SAMPLES)) is not None:
                feeds[str(x.name)] = array
            else:
                raise _UnclearError
        try:
            numbers = ReferenceEvaluator(ir.to_proto(node), opsets={"": self.opset}).run(
                None, feeds
            )
        except Exception as error:  # whatever does not run so
            raise _UnclearError from error
        boxes = np.concatenate(tables)
        return [boxes[_squeezed(np.asarray(n)[..., None])[..., 0]] for n in numbers]

    def _reduced(self, node: ir.Node, at: Boxes) -> Boxes:
        listed = [*node.inputs, None][1]
        axes: Sequence[int] = range(at.ndim - 1)
        if listed is not None:
            array = evaluated(listed, self.opset, SAMPLES)
            if array is None:
                raise _UnclearError
            axes = [int(axis) % (at.ndim - 1) for axis in array.reshape(-1)] or axes
        joined: Boxes = np.fmin.reduce(at, axis=tuple(axes), keepdims=True)
        return joined if attribute(node, "keepdims", 1) else joined.squeeze(tuple(axes))

    def _matrix_product(self, node: ir.Node, known: Mapping[ir.Value, Boxes]) -> Boxes:
        """Each row is of what it was of in the first factor, each column as in the second."""
        found = []
        for x, contracted in zip(node.inputs, (-2, -3), strict=True):
            if x is not None and rank(x) < 2:
                raise _UnclearError
            if x is not None and x in known:
                at = np.fmin.reduce(known[x], axis=contracted, keepdims=True)
                found.append(_aligned(at, node.outputs[0]))
        return self.product(found)

    def _einsum(self, node: ir.Node, known: Mapping[ir.Value, Boxes]) -> Boxes:
        equation = node.attributes.get_string("equation").replace(" ", "")
        if "..." in equation or "->" not in equation:
            raise _UnclearError
        left, result = equation.split("->")
        found = []
        for x, term in zip(node.inputs, left.split(","), strict=True):
            if x is None or x not in known:
                continue
            if len(set(term)) < len(term):
                raise _UnclearError
            gone = tuple(i for i, letter in enumerate(term) if letter not in result)
            at = np.fmin.reduce(known[x], axis=gone) if gone else known[x]
            kept = [letter for letter in term if letter in result]
            order = sorted(range(len(kept)), key=lambda i: result.index(kept[i]))
            missing = [i for i, letter in enumerate(result) if letter not in term]
            found.append(np.expand_dims(at.transpose([*order, len(kept)]), missing))
        return self.product(found)


class _UnclearError(Exception):
    """No rule says what comes out of a node: anything of what goes in."""


def _done(nodes: Sequence[ir.Node], kept: Collection[ir.Value] | None) -> list[list[ir.Value]]:
    """For each node, what none reads behind it, but for those kept; None keeps all."""
    done: list[list[ir.Value]] = [[] for _ in nodes]
    last: dict[ir.Value, int] = {}
    for i, node in enumerate(nodes if kept is not None else ()):
        last |= dict.fromkeys((v for v in (*operands(node), *node.outputs) if v is not None), i)
    for value in last.keys() - set(kept or ()):
        done[last[value]].append(value)
    return done


def _needed(at: Boxes | None) -> Boxes:
    if at is None:
        raise _UnclearError
    return at


def _everywhere(node: ir.Node, y: ir.Value, read: Sequence[Boxes]) -> Boxes:
    whole = _all([np.fmin.reduce(at.reshape(-1, 6), axis=0) for at in read])
    return whole.reshape((1,) * (0 if y.shape is None else len(y.shape)) + (6,))


def _aligned(at: Boxes, y: ir.Value) -> Boxes:
    """With axes in front, as broadcasting to y adds them."""
    return at.reshape((1,) * (rank(y) + 1 - at.ndim) + at.shape)


def _squeezed(at: Boxes) -> Boxes:
    """Of size 1 along axes where nothing changes."""
    for axis in range(at.ndim - 1):
        if at.shape[axis] > 1:
            first = at.take([0], axis)
            same = at == first
            if at.dtype.kind == "f":
                same |= np.isnan(at) & np.isnan(first)
            if same.all():
                at = first
    return at


def _windowed(node: ir.Node, at: Boxes, convolution: bool) -> Boxes:
    """The box around a window. Padding is counted as the image goes on, outside its borders."""
    x, y, kernel = input_of(node), node.outputs[0], None
    if convolution:
        assert node.inputs[1] is not None
        kernel = static(node.inputs[1], 2)
        at = np.fmin.reduce(at, axis=1, keepdims=True)
    window = window_of(node, x, y, kernel)
    for i, size in enumerate(window.kernel):
        axis = 2 + i
        if at.shape[axis] == 1:
            continue
        pads = [(0, 0)] * at.ndim
        pads[axis] = (window.before[i], max(window.after[i], 0))
        padded = np.pad(at, pads, mode="reflect", reflect_type="odd")
        starts = window.strides[i] * np.arange(static(y, axis, axis + 1)[0])
        taps = (padded.take(starts + k * window.dilations[i], axis) for k in range(size))
        at = reduce(np.fmin, taps)
    return at


def _resized(node: ir.Node, at: Boxes) -> Boxes:
    """What lies between is of what lies between, in proportion to the whole axis."""
    before, after = sizes_of(input_of(node)), sizes_of(node.outputs[0])
    for axis, (old, new) in enumerate(zip(before, after, strict=True)):
        if old == new or at.shape[axis] == 1:
            continue
        pads = [(0, 0)] * at.ndim
        pads[axis] = (1, 1)
        padded = np.pad(at, pads, mode="reflect", reflect_type="odd")
        there = (np.arange(new) + 0.5) * old / new + 0.5
        lower = np.floor(there).astype(int)
        share = (there - lower).reshape([-1 if i == axis else 1 for i in range(at.ndim)])
        at = (1 - share) * padded.take(lower, axis) + share * padded.take(lower + 1, axis)
    return at


def _gemm(node: ir.Node, at: Boxes, known: Mapping[ir.Value, Boxes]) -> Boxes:
    if any(x in known for x in node.inputs[1:]):
        raise _UnclearError
    if attribute(node, "transA", 0):
        at = at.swapaxes(0, 1)
    joined: Boxes = np.fmin.reduce(at, axis=1, keepdims=True)
    return joined
