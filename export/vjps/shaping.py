"""Operators that move elements about as their axes lie, none by an index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.errors import OpenSizeError
from onnxplain.export.autodiff import Cotangents, Node
from onnxplain.export.operators import Axes, Half, Kind, Linear, as_all, register_vjp
from onnxplain.export.tensors import (
    Number,
    along_axis,
    array_of,
    attribute,
    axes_from_end,
    axis_from_end,
    constant_of,
    dims,
    gather_transpose,
    integers,
    is_known,
    pad_axis,
    pad_open,
    rank,
    reshape,
    reshape_like,
    size_at,
    size_of,
    static,
    zeros_like,
)
from onnxplain.export.windows import window_of_blocks
from onnxplain.kernels.windows import END, side_by_side, taps


@register_vjp("Reshape", kind=Kind.MOVE, axes=Axes.RESHAPE)
@register_vjp("Flatten", kind=Kind.MOVE, axes=Axes.FLATTENING)
@register_vjp("Squeeze", "Unsqueeze", kind=Kind.MOVE, axes=Axes.LISTED)
def reshaping(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    return reshape_like(op, g, node.inputs[0])


@register_vjp("Transpose", kind=Kind.MOVE, axes=Axes.TRANSPOSITION)
def transpose(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    perm = node.attributes.get_ints("perm", list(reversed(range(rank(node.inputs[0])))))
    return op.Transpose(g, perm=np.argsort(perm).tolist())


@register_vjp("Expand", kind=Kind.MOVE, axes=Axes.EXPANSION)
def expand(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    return g


@register_vjp("Tile", kind=Kind.MOVE)
def tile(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """The copies along each axis, on an axis of their own, are summed."""
    x, repeats = node.inputs
    given = constant_of(repeats, "the repeats of Tile")
    assert given is not None
    split: list[int | ir.SymbolicDim] = []
    copies: list[int] = []
    for size, count in zip(dims(x), given.tolist(), strict=True):
        if count != 1:
            copies.append(len(split))
            split.append(count)
        split.append(size)
    if not copies:
        return g
    return op.ReduceSum(reshape(op, g, split), [axis - len(split) for axis in copies], keepdims=0)


@register_vjp("Trilu", kind=Kind.MOVE, axes=Axes.MATRICES)
def trilu(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    return op.Trilu(g, *node.inputs[1:], upper=attribute(node, "upper", 1))


@register_vjp(
    "Concat",
    kind=Kind.MOVE,
    axes=Axes.CONCATENATION,
    linear=Linear.TOGETHER,
    homogeneous=range(64),
    sign=as_all,
)
def concat(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    axis = axis_from_end(node, 0, node.outputs[0])
    sizes: Any = [dims(x)[axis] for x in node.inputs]
    if len(sizes) == 1:
        return g
    if not all(map(is_known, sizes)):
        sizes = op.Concat(*(size_at(op, x, axis) for x in node.inputs), axis=0)
    parts = list(op.Split(g, sizes, axis=axis, _outputs=len(node.inputs)))
    for part, x in zip(parts, node.inputs, strict=True):
        part.shape = x.shape  # inference does not read the sizes of more than some twenty
    return parts


@register_vjp("Split", kind=Kind.MOVE, axes=Axes.ALONG)
def split(op: OpBuilder, node: Node, *gs: ir.Value | None) -> Cotangents:
    parts = [zeros_like(op, y) if g is None else g for g, y in zip(gs, node.outputs, strict=True)]
    return op.Concat(*parts, axis=axis_from_end(node, 0, node.inputs[0]))


@register_vjp("Slice", kind=Kind.MOVE, axes=Axes.SLICE)
def slicing(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    x = node.inputs[0]
    starts, ends, axes, steps = [*node.inputs[1:], None, None][:4]
    given = constant_of(axes, "the axes of Slice")
    strides = constant_of(steps, "the steps of Slice")
    at = range(size_of(starts, 0)) if given is None else given.tolist()
    each = zip(
        axes_from_end(at, rank(x)),
        _numbers(op, starts, len(at)),
        _numbers(op, ends, len(at)),
        [1] * len(at) if strides is None else strides.tolist(),
        strict=True,
    )
    for axis, start, end, step in each:
        size = dims(x)[axis]
        if not (isinstance(start, int) and isinstance(end, int)):
            g = _slice_of_open(op, node, g, axis, start, end, step)
        elif (start, step) == (0, 1) and end >= np.iinfo(np.int32).max:
            continue  # takes the whole axis, which may be the dynamic one
        elif is_known(size):
            g = gather_transpose(op, g, x, axis, _taken(start, end, step, size), size)
        else:
            g = _slice_of_open(op, node, g, axis, start, end, step)
    return g


def _numbers(op: OpBuilder, vector: ir.Value, count: int) -> Sequence[Number]:
    """The whole numbers in a vector; those that are computed as vectors of one."""
    known = array_of(vector)
    if known is not None:
        return [int(n) for n in known]
    return [op.Slice(vector, [i], [i + 1]) for i in range(count)]


def _slice_of_open(
    op: OpBuilder, node: Node, g: ir.Value, axis: int, start: Number, end: Number, step: int
) -> ir.Value:
    """What `gather_transpose` gives where a Slice takes some of an axis of open size, or by numbers
    that are computed.

    Raises:
        OpenSizeError: it goes backwards over some of it.
    """
    x, y = node.inputs[0], node.outputs[0]
    if (start, step) == (-1, -1) and isinstance(end, int) and end <= np.iinfo(np.int32).min:
        return op.Slice(g, [-1], [np.iinfo(np.int64).min], [axis], [-1])
    if step < 1:
        raise OpenSizeError(f"it takes {x.name!r} {x.shape} backwards")
    n = size_at(op, x, axis)
    before = _from_start(op, start, n)
    if step == 1:
        last = _from_start(op, end, n)
        return pad_open(op, g, x, axis, before, op.Sub(n, op.Max(last, before)))
    spread = op.Mul(size_at(op, y, axis), [step])  # one taken, and zeros up to the next one
    g = _apart(op, g, x, axis, step)
    return pad_open(op, g, x, axis, before, op.Sub(op.Sub(n, before), spread))


def _from_start(op: OpBuilder, index: Number, n: ir.Value) -> ir.Value:
    """A bound of a Slice, counted from the start of an axis of n entries and within it."""
    if not isinstance(index, int):
        index = op.Where(op.Less(index, [0]), op.Add(index, n), index)
        return op.Min(op.Max(index, [0]), n)
    return op.Min(n, [index]) if index >= 0 else op.Max(op.Add(n, [index]), [0])


def _apart(op: OpBuilder, g: ir.Value, like: ir.Value, axis: int, step: int) -> ir.Value:
    """Each along an axis (counted from the end, of the rank of `like`), and zeros behind it."""
    perm = list(range(rank(like)))
    perm[axis], perm[-1] = perm[-1], perm[axis]
    last = g if axis == -1 else op.Transpose(g, perm=perm)
    pads = [0] * (2 * rank(like) + 1) + [step - 1]
    merged = op.Reshape(op.Pad(op.Unsqueeze(last, [-1]), pads), [0] * (rank(like) - 1) + [-1])
    return merged if axis == -1 else op.Transpose(merged, perm=perm)


def _taken(start: int, end: int, step: int, size: int) -> np.ndarray:
    """The indices that Slice takes: its bounds are clamped, as Python's are not."""
    low, high = (0, size) if step > 0 else (-1, size - 1)
    first, last = (n + size if n < 0 else n for n in (start, end))
    return np.arange(min(max(first, 0), high), min(max(last, low), high), step)


def _with_what_is_put(node: Node) -> Sequence[ir.Value | None]:
    return [node.inputs[0], *node.inputs[2:3]]


@register_vjp("Pad", kind=Kind.MOVE, axes=Axes.PADDING, homogeneous=(0, 2), sign=_with_what_is_put)
def pad(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    x, pads, _, axes = [*node.inputs, None, None][:4]
    assert x is not None
    whole = g
    mode = node.attributes.get_string("mode", "constant")
    amounts = array_of(pads)
    if amounts is None:
        return [_pad_of_open(op, node, g, mode), None, None]
    given = constant_of(axes, "the axes of Pad")
    at = axes_from_end(range(rank(x)) if given is None else given.tolist(), rank(x))
    for axis, before, after in zip(at, *np.split(amounts, 2), strict=True):
        if before == after == 0:
            continue
        size = dims(x)[axis]
        if not is_known(size):
            g = _pad_along_open(op, g, x, axis, int(before), int(after), mode)
            continue
        # Where each padded position comes from; -1 marks those that come from nowhere.
        kept = np.arange(size)[max(-before, 0) : size + min(after, 0)]
        widths = (max(before, 0), max(after, 0))
        if mode == "constant":
            source = np.pad(kept, widths, constant_values=-1)
        else:
            source = np.pad(kept, widths, mode=mode)  # type: ignore[call-overload]
        g = _from_source(op, g, x, axis, source, size)

    def of_value() -> ir.Value:
        """What arrives elsewhere than at x."""
        axes = list(range(-rank(x), 0))
        rest = op.Sub(op.ReduceSum(whole, axes, keepdims=0), op.ReduceSum(g, axes, keepdims=0))
        return reshape_like(op, rest, node.inputs[2])

    return [g, None, of_value if mode == "constant" else None]


def _pad_along_open(
    op: OpBuilder, g: ir.Value, x: ir.Value, axis: int, before: int, after: int, mode: str
) -> ir.Value:
    """The same along an axis of open size: what was put before and behind it is taken off, and
    where it was copied, by a matrix or from the other end, added to what it was copied of."""
    ends = [[max(before, 0)], [-max(after, 0) or END], [axis]]
    own = pad_axis(op, op.Slice(g, *ends), x, axis, max(-before, 0), max(-after, 0))
    if mode == "constant":
        return own
    n = size_at(op, x, axis)
    for count, at_end in ((before, False), (after, True)):
        if count < 1:
            continue
        part = op.Slice(g, [-count if at_end else 0], [END if at_end else count], [axis])
        if mode == "wrap":
            rest = op.Sub(n, [count])
            own = op.Add(own, pad_open(op, part, x, axis, *((0, rest) if at_end else (rest, 0))))
            continue
        source = np.pad(np.arange(count + 1), (count, 0), mode=mode)[:count]  # type: ignore[call-overload]
        matrix = np.eye(count + 1)[source]
        copied = along_axis(op, part, x, axis, matrix[::-1, ::-1] if at_end else matrix)
        rest = op.Sub(n, [count + 1])
        own = op.Add(own, pad_open(op, copied, x, axis, *((rest, 0) if at_end else (0, rest))))
    return own


def _pad_of_open(op: OpBuilder, node: Node, g: ir.Value, mode: str) -> ir.Value:
    """The same where the padding is computed of open sizes.

    Raises:
        OpenSizeError: it is no padding with a constant, or of some axes alone.
    """
    x, pads, _, axes = [*node.inputs, None, None][:4]
    if mode != "constant" or axes is not None:
        raise OpenSizeError(f"the pads of Pad ({pads.name!r}) must be constants")
    r = rank(x)
    before, after = (op.Slice(pads, [part * r], [(part + 1) * r]) for part in (0, 1))
    put, taken = op.Max(before, 0), op.Max(op.Neg(op.Concat(before, after, axis=0)), 0)
    kept = op.Sub(op.Add(put, op.Shape(x)), op.Max(op.Neg(before), 0))
    kept = op.Sub(kept, op.Max(op.Neg(after), 0))
    return op.Pad(op.Slice(g, put, kept, list(range(-r, 0))), taken)


def _from_source(
    op: OpBuilder, g: ir.Value, x: ir.Value, axis: int, source: np.ndarray, size: int
) -> ir.Value:
    inside = np.flatnonzero(source >= 0)
    if len(inside) < len(source):
        g = op.Slice(g, [int(inside[0])], [int(inside[-1]) + 1], [axis])
    return gather_transpose(op, g, x, axis, source[inside], size)


@register_vjp("DepthToSpace", kind=Kind.MOVE, axes=Axes.IMAGES, half=Half.HALF)
def depth_to_space(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """SpaceToDepth, with its channels put in the order of the mode."""
    block = attribute(node, "blocksize", 1)
    z = op.SpaceToDepth(g, blocksize=block)
    if node.attributes.get_string("mode", "DCR") == "DCR":
        return z
    x = node.inputs[0]
    if not all(map(is_known, dims(x)[2:])):
        order = np.arange(size_of(x, 1)).reshape(block * block, -1).T
        return op.Gather(z, integers(op, order.reshape(-1)), axis=-3)
    channels, height, width = static(x, 1)
    by_block = reshape(op, z, [-1, block * block, channels // block**2, height, width])
    return reshape_like(op, op.Transpose(by_block, perm=[0, 2, 1, 3, 4]), node.inputs[0])


@register_vjp("SpaceToDepth", kind=Kind.MOVE, axes=Axes.IMAGES, half=Half.HALF)
def space_to_depth(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    return op.DepthToSpace(g, blocksize=attribute(node, "blocksize", 1), mode="DCR")


@register_vjp("Col2Im", kind=Kind.POOL, axes=Axes.IMAGES, on_cuda=False)
def col2im(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """The windows whose elements were added to the image, taken from it again."""
    x = node.inputs[0]
    kernel = constant_of(node.inputs[2], "the block shape of Col2Im")
    assert kernel is not None
    window = window_of_blocks(node, kernel.tolist())
    return reshape_like(op, side_by_side(op, taps(op, g, window), window), x)
