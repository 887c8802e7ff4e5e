"""How the elements of a layer lie in the image: as a map, or as tokens that are put in order."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export import places
from onnxplain.export.autodiff import between, operator_name
from onnxplain.export.canonical.ends import image_axes
from onnxplain.export.operators import Kind, row_of
from onnxplain.export.places import Boxes
from onnxplain.export.tensors import dims, integers, rank

Axes = tuple[int, int, int]
"""Of height, width and channels, counted from the end."""

CHANNELS_FIRST: Axes = (-2, -1, -3)
CHANNELS_LAST: Axes = (-3, -2, -1)


@dataclass(frozen=True)
class Tokens:
    """The order that makes [N, height, width, channels] of a layer's elements.

    Attributes:
        perm: of its axes: first the batch's, which windows may share, those along which places
            change, then all others.
        count: how many tokens each image has, those of no place counted.
        order: which of them are the grid's, row by row; others, as a class token, are left out.
        channel_axes: those along which no place changes.
    """

    perm: tuple[int, ...]
    count: int
    order: tuple[int, ...]
    height: int
    width: int
    channels: int
    channel_axes: tuple[int, ...]

    @property
    def in_words(self) -> str:
        beside = self.count - len(self.order)
        others = f" and {beside} beside them" if beside else ""
        return f"{self.height} × {self.width} tokens{others}"


@dataclass(frozen=True)
class Layer:
    """Where a class activation map looks.

    Attributes:
        axes: those of its elements once they are `laid_out`.
        tokens: None where they are as they are.
    """

    value: ir.Value
    axes: Axes
    tokens: Tokens | None = None

    @property
    def batch_axis(self) -> int:
        """The value's axis of the batch, which windows may share."""
        return 0 if self.tokens is None else self.tokens.perm[0]

    @property
    def channel_axes(self) -> tuple[int, ...]:
        """The value's axes of channels, the first one outermost."""
        if self.tokens is None:
            return (rank(self.value) + self.axes[2],)
        return self.tokens.channel_axes

    def laid_out(self, op: OpBuilder, x: ir.Value) -> ir.Value:
        """Elements of the layer's shape, or with more axes in front, as a map in the image."""
        if (tokens := self.tokens) is None:
            return x
        before = rank(x) - len(tokens.perm)
        perm = [*range(before), *(before + axis for axis in tokens.perm)]
        if perm != list(range(rank(x))):
            x = op.Transpose(x, perm=perm)
        kept = [0] * before
        x = op.Reshape(x, [*kept, -1, tokens.count, tokens.channels])
        if tokens.order != tuple(range(tokens.count)):
            x = op.Gather(x, integers(op, np.array(tokens.order)), axis=-2)
        return op.Reshape(x, [*kept, 0, tokens.height, tokens.width, tokens.channels])


def resized_to(op: OpBuilder, low: ir.Value, image: ir.Value, corners: bool = False) -> ir.Value:
    """Maps [.., .., h, w], bilinearly as large as the image: by their borders, or corner on
    corner."""
    first, last, _ = image_axes(image)
    sides: Any = dims(image)[first : last + 1]
    if not all(isinstance(n, int) for n in sides):
        sides = op.Shape(image, start=first, end=last + 1)
    # All the sizes, not `axes` alone: TensorRT's parser loses an open batch over those.
    sizes = op.Concat(op.Shape(low, start=0, end=2), sides, axis=0)
    where = "align_corners" if corners else "half_pixel"
    return op.Resize(low, None, None, sizes, mode="linear", coordinate_transformation_mode=where)


def placed(value: ir.Value, at: Boxes | None) -> Layer | str:
    """The layer of a value whose boxes make a grid of at least two places; else why they do not."""
    if at is None or np.isnan(at).all():
        return "nothing in it is of a part of the image"
    sizes, each = places.sizes_of(value), at.ndim - 1
    varying = [axis for axis in range(each) if at.shape[axis] > 1]
    by_sample = [axis for axis in varying if _varies(at[..., 0], axis)][:1]
    first = by_sample or ([0] if sizes[0] == 1 else varying[:1])
    perm = [*first, *(axis for axis in varying if axis not in first)]
    perm += [axis for axis in range(each) if axis not in perm]
    samples = 1 + int(np.nanmax(at[..., 0]))
    if at.size % (6 * samples):
        return "its batch is no axis of its own"
    laid = at.transpose([*perm, each]).reshape(samples, -1, 6)
    number = np.arange(samples)[:, None, None] * np.array([1, 0, 0, -1, 0, 0])
    of_one = laid[0]
    if np.nanmax(of_one[:, 0]) or not np.array_equal(laid, of_one + number, equal_nan=True):
        return "its batch is no axis of its own"
    found = _order(of_one)
    if isinstance(found, str):
        return found
    order, height, width = found
    channel_axes = tuple(axis for axis in perm[1:] if axis not in varying)
    channels = int(np.prod([sizes[axis] for axis in channel_axes]))
    as_it_is = each == 4 and perm[0] == 0 and order == tuple(range(len(of_one)))
    for axes in (CHANNELS_FIRST, CHANNELS_LAST) if as_it_is else ():
        spatial = [axes[0] + 4, axes[1] + 4]
        if {*varying} - {0} <= {*spatial} and [sizes[i] for i in spatial] == [height, width]:
            return Layer(value, axes)
    tokens = Tokens(tuple(perm), len(of_one), order, height, width, channels, channel_axes)
    return Layer(value, CHANNELS_LAST, tokens)


def _varies(at: np.ndarray, axis: int) -> bool:
    first = at.take([0], axis)
    return bool(((at != first) & ~np.isnan(at) & ~np.isnan(first)).any())


def _order(boxes: Boxes) -> tuple[tuple[int, ...], int, int] | str:
    """The indices of the boxes [T, 6] of a place, row by row; how many rows and columns."""
    (there,) = np.nonzero(~np.isnan(boxes[:, 0]))
    rows, columns = (boxes[there, i] - boxes[there, i + 3] for i in (1, 2))
    heights, row = np.unique(rows, return_inverse=True)
    widths, column = np.unique(columns, return_inverse=True)
    cells = row * len(widths) + column
    if len(heights) * len(widths) < 2:
        return "all of it is of one part of the image"
    if len(cells) != len(heights) * len(widths) or len(np.unique(cells)) < len(cells):
        many = len({*map(tuple, boxes[there])})
        return f"it is of {many} parts of the image, which are no grid of rows and columns"
    return tuple(int(i) for i in there[np.argsort(cells)]), len(heights), len(widths)


def last_tokens(
    graph: ir.Graph,
    cuts: Sequence[ir.Value],
    ends: Collection[ir.Value],
    found: dict[ir.Value, Boxes],
) -> Layer | None:
    """The last layer of tokens by which the image's places reach the ends.

    Of the norms and the sums with a shortcut that all goes through (of any values, if of none of
    those), it is the last one of whose tokens the ends see anything: where a class token alone is
    read, that is what goes into the last block. Where all that they see of it goes through one
    norm, it is the norm's result, as users of pytorch-grad-cam take it: in it every token counts
    alike, however long its vector is.
    """
    for value in [*filter(lambda y: _ends_a_block(y, found), cuts[::-1]), *cuts[::-1]]:
        layer = placed(value, found.get(value))
        if isinstance(layer, str) or not is_seen(graph, layer, found, ends):
            continue
        layer = _before_moves(layer, found)
        norms = [
            node.outputs[0]
            for node in (use.node for use in layer.value.uses())
            if row_of(operator_name(node)).kind is Kind.NORMALISATION
        ]
        for norm in norms:
            behind = placed(norm, found.get(norm))
            alone = not is_seen(graph, layer, found, ends, but=norm)
            if isinstance(behind, Layer) and alone:
                return behind
        return layer
    return None


def _ends_a_block(value: ir.Value, found: dict[ir.Value, Boxes]) -> bool:
    if (node := value.producer()) is None:
        return False
    kind, read = row_of(operator_name(node)).kind, sum(x in found for x in node.inputs)
    return kind is Kind.NORMALISATION or (kind is Kind.SUM and read > 1)


def is_seen(
    graph: ir.Graph,
    layer: Layer,
    found: dict[ir.Value, Boxes],
    ends: Collection[ir.Value],
    but: ir.Value | None = None,
) -> bool:
    """Whether the ends depend on what a layer holds of the image's places, other than by `but`."""
    start = {layer.value: found[layer.value]}
    if but is not None:
        start[but] = np.full((1,) * rank(but) + (6,), np.nan)
    behind = places.sees(graph, between(graph, start, ends), start, ends)
    return any(end in behind and not np.isnan(behind[end]).all() for end in ends)


def _before_moves(layer: Layer, found: dict[ir.Value, Boxes]) -> Layer:
    """What a layer's tokens were taken from, in any order: a user knows that by name."""
    while (node := layer.value.producer()) is not None and row_of(
        operator_name(node)
    ).kind is Kind.MOVE:
        x = node.inputs[0]
        before = "" if x is None else placed(x, found.get(x))
        if x is None or isinstance(before, str) or len([y for y in node.inputs if y in found]) > 1:
            break
        layer = before
    return layer
