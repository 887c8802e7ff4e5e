"""What the rules need to know of shapes and constants, and the few nodes that they share.

Axes in the nodes made here count from the end, so that an axis put before all others (the K
targets of `export.vmap`) moves none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, TypeGuard

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.errors import OpenSizeError, SourceError
from onnxplain.export.autodiff import Node


def dims(value: ir.Value) -> list[int | ir.SymbolicDim]:
    """The dimensions of a value: numbers, or symbols where they are known at run time only.

    Raises:
        SourceError: not even the rank is known.
    """
    if value.shape is None:
        raise SourceError(f"the rank of {value.name!r} is unknown; shape inference must find it")
    return list(value.shape)


def rank(value: ir.Value) -> int:
    return len(dims(value))


def static(value: ir.Value, start: int = 0, stop: int | None = None) -> list[int]:
    """The dimensions `start:stop` of a value, which must all be numbers.

    Raises:
        OpenSizeError: one of them is known at run time only.
    """
    sizes = dims(value)[start:stop]
    if not all(isinstance(size, int) for size in sizes):
        raise OpenSizeError(
            f"{value.name!r} has the shape {value.shape}, of which only the batch may be dynamic"
        )
    return [size for size in sizes if isinstance(size, int)]


def size_of(value: ir.Value, axis: int) -> int:
    """The size along one axis, which must be a number; OpenSizeError if it is not."""
    return static(value, axis, axis + 1 or None)[0]


Number: TypeAlias = int | ir.Value
"""A whole number, or where it is known at run time only, a vector that holds it."""

USUAL = "onnxplain.usual"
"""The entry of a graph's `meta` that has a number for each of its open sizes, by their names."""


def usual(value: ir.Value) -> list[int | None]:
    """The dimensions of a value, where an image of any size has its usual one; None for others that
    are known at run time only."""
    numbers = {} if value.graph is None else value.graph.meta.get(USUAL, {})
    sizes = (n.evaluate(numbers) if numbers and _is_symbol(n) else n for n in dims(value))
    return [n if isinstance(n, int) else None for n in sizes]


def usual_size_of(value: ir.Value, axis: int) -> int:
    """The size along one axis, for an image of the usual size.

    Raises:
        OpenSizeError: it is known at run time only.
    """
    size = usual(value)[axis]
    return size_of(value, axis) if size is None else size


def _is_symbol(size: int | ir.SymbolicDim) -> TypeGuard[ir.SymbolicDim]:
    return isinstance(size, ir.SymbolicDim) and size.value is not None


def constant_of(value: ir.Value | None, what: str) -> np.ndarray | None:
    """The array of a constant value, `None` for an absent input.

    Raises:
        SourceError: the value is computed at run time; `what` says what it is.
    """
    array = array_of(value)
    if array is None and value is not None:
        raise SourceError(f"{what} ({value.name!r}) must be a constant")
    return array


def array_of(value: ir.Value | None) -> np.ndarray | None:
    """A constant's array; `None` for any other value, and for an absent input."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def number_of(value: ir.Value | None) -> float | None:
    """The number in a constant of one element; `None` for any other value."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None or tensor.size != 1 else float(tensor.numpy().item())


def constant(op: OpBuilder, array: np.ndarray, like: ir.Value) -> ir.Value:
    """A constant with the dtype of `like`."""
    dtype = like.dtype or ir.DataType.FLOAT
    name = f"pullback.constant_{len(op.builder.root.graph.initializers)}"
    tensor = ir.tensor(array.astype(dtype.numpy()), dtype=dtype, name=name)
    return op.builder.initializer(tensor, name, qualify=False)


def in_float32(op: OpBuilder, value: ir.Value) -> ir.Value:
    """The value itself where it is in float32."""
    return value if value.dtype == ir.DataType.FLOAT else op.Cast(value, to=ir.DataType.FLOAT)


def attribute(node: Node, name: str, default: int) -> int:
    return node.attributes.get_int(name, default)


def input_of(node: ir.Node, index: int = 0) -> ir.Value:
    """An input that the operator has always."""
    x = node.inputs[index]
    assert x is not None
    return x


def axis_from_end(node: Node, default: int, of: ir.Value) -> int:
    """The node's `axis` attribute, counted from the end of `of` (always negative)."""
    axis = attribute(node, "axis", default)
    return axis if axis < 0 else axis - rank(of)


def axis_of(node: Node, of: ir.Value) -> int:
    """The same, the default being that of ONNX's own schema of the operator."""
    if "axis" in node.attributes:
        return axis_from_end(node, 0, of)
    return axis_from_end(
        node, onnx.defs.get_schema(node.op_type).attributes["axis"].default_value.i, of
    )


def axes_from_end(axes: Sequence[int], rank: int) -> list[int]:
    return [int(axis) if axis < 0 else int(axis) - rank for axis in axes]


def reshape(op: OpBuilder, value: ir.Value, shape: Sequence[int | ir.SymbolicDim]) -> ir.Value:
    """Reshape to `shape`.

    Raises:
        OpenSizeError: more than one of its dimensions is known at run time only.
    """
    if sum(not isinstance(size, int) for size in shape) > 1:
        sizes = ", ".join(map(str, shape))
        raise OpenSizeError(
            f"{value.name!r} would be of shape [{sizes}], of which only the batch may be dynamic"
        )
    if not shape:
        return op.Reshape(value, integers(op, np.array([])))  # an empty list has no type
    numbers = [size if isinstance(size, int) else -1 for size in shape]
    if 0 in numbers and -1 not in numbers:
        return op.Reshape(value, numbers, allowzero=1)
    return op.Reshape(value, numbers)


def reshape_like(op: OpBuilder, value: ir.Value, like: ir.Value) -> ir.Value:
    if sum(not isinstance(size, int) for size in dims(like)) > 1:
        value = op.Reshape(value, op.Shape(like))
        value.shape = like.shape  # inference does not see through Shape
        return value
    return reshape(op, value, dims(like))


def reshape_each(op: OpBuilder, value: ir.Value, like: ir.Value, axis: int = 0) -> ir.Value:
    """Reshape to the shape of `like`, but for as many along one axis as there are."""
    sizes = [-1 if i == axis else n for i, n in enumerate(dims(like))]
    if all(map(is_known, sizes)):
        return op.Reshape(value, sizes)
    before = [op.Shape(like, start=0, end=axis)] if axis else []
    return op.Reshape(value, op.Concat(*before, [-1], op.Shape(like, start=axis + 1), axis=0))


def spread_to(op: OpBuilder, value: ir.Value, like: ir.Value) -> ir.Value:
    """Broadcast to the shape of `like`, whatever that is at run time."""
    spread = op.Expand(value, op.Shape(like))
    spread.shape = like.shape  # inference does not see through Shape
    return spread


def zeros_like(op: OpBuilder, value: ir.Value) -> ir.Value:
    return spread_to(op, constant(op, np.zeros([1] * rank(value)), value), value)


def along_axis(
    op: OpBuilder, g: ir.Value, like: ir.Value, axis: int, matrix: np.ndarray | ir.Value
) -> ir.Value:
    """Apply a constant matrix along one axis: `out[…, j, …] = Σ_i g[…, i, …] · matrix[i, j]`.

    `axis` is negative; `like` has `g`'s rank and gives the constant its dtype.
    """
    if isinstance(matrix, np.ndarray):
        matrix = constant(op, matrix.T if axis == -2 else matrix, like)
    elif axis == -2:
        matrix = op.Transpose(matrix)
    if axis == -1:
        return op.MatMul(g, matrix)
    if axis == -2:
        return op.MatMul(matrix, g)
    swap = list(range(rank(like)))
    swap[axis], swap[-1] = swap[-1], swap[axis]
    return op.Transpose(op.MatMul(op.Transpose(g, perm=swap), matrix), perm=swap)


def gather_transpose(
    op: OpBuilder, g: ir.Value, like: ir.Value, axis: int, indices: np.ndarray, size: int
) -> ir.Value:
    """Cotangent of `x` in `y = x[…, indices, …]`: each slice of `g` is added where it came from.

    `axis` (negative) has `size` entries in `x`; `indices` is a vector; `like` has `g`'s rank.
    """
    indices = np.where(indices < 0, indices + size, indices)
    count = len(indices)
    if count and np.array_equal(indices, np.arange(indices[0], indices[0] + count)):
        return pad_axis(op, g, like, axis, int(indices[0]), size - count - int(indices[0]))
    if len(np.unique(indices)) == count:  # a zero slice at the end serves all that was not taken
        source = np.full(size, count)
        source[indices] = np.arange(count)
        return op.Gather(pad_axis(op, g, like, axis, 0, 1), source.tolist(), axis=axis)
    return along_axis(op, g, like, axis, np.eye(size)[indices])


def pad_axis(
    op: OpBuilder, g: ir.Value, like: ir.Value, axis: int, before: int, after: int
) -> ir.Value:
    """Zeros before and after along one axis (counted from the end); `like` has `g`'s rank.

    All axes are given their padding: ONNX Runtime's transpose optimiser takes a Pad with `axes` for
    one without, and moves the padding to other axes.
    """
    if before == after == 0:
        return g
    pads = [[0] * rank(like), [0] * rank(like)]
    pads[0][axis], pads[1][axis] = before, after
    return op.Pad(g, pads[0] + pads[1])


def pad_open(
    op: OpBuilder, g: ir.Value, like: ir.Value, axis: int, before: Number, after: Number
) -> ir.Value:
    """`pad_axis` by numbers of which some are known at run time only, as vectors of one; negative
    ones take off."""
    r = rank(like)
    parts: list[Number | list[int]] = [[0] * (r + axis), before, [0] * (r - 1), after]
    parts += [[0] * (-1 - axis)]
    vectors = [[part] if isinstance(part, int) else part for part in parts if part != []]
    return op.Pad(g, op.Concat(*vectors, axis=0))


def size_at(op: OpBuilder, value: ir.Value, axis: int) -> ir.Value:
    """The size along an axis, counted from the end, as a vector of one."""
    return op.Shape(value, start=axis, end=axis + 1 or None)


def scalar_size_at(op: OpBuilder, value: ir.Value, axis: int) -> ir.Value:
    """The size along an axis as an int64 scalar, which the processor computes."""
    return op.Squeeze(size_at(op, value, axis), [0])


def is_known(size: int | ir.SymbolicDim) -> TypeGuard[int]:
    return isinstance(size, int)


def same_size(a: int | ir.SymbolicDim, b: int | ir.SymbolicDim) -> bool:
    """Whether two sizes are known to be equal; of two that nothing is known of they are not."""
    return a == b and (is_known(a) or a.value is not None)  # type: ignore[union-attr]


def integers(op: OpBuilder, array: np.ndarray) -> ir.Value:
    """A constant of int64."""
    name = f"pullback.integers_{len(op.builder.root.graph.initializers)}"
    tensor = ir.tensor(array.astype(np.int64), name=name)
    return op.builder.initializer(tensor, name, qualify=False)


def on_device(op: OpBuilder, number: ir.Value) -> ir.Value:
    """An int64 scalar that the processor has computed of sizes, as [1] where the pixels are.

    The operands of Range are the processor's on every device, its result is not. So no run waits
    for a copy, and ONNX Runtime's CUDA provider records its graphs.
    """
    return op.Range(number, op.Add(number, 1), 1)


def floats_like(op: OpBuilder, numbers: ir.Value, like: ir.Value) -> ir.Value:
    """Whole numbers with the dtype of `like`.

    By Cast, and not by CastLike: where `onnxplain.runtime.conversion` makes `like` halves, these
    stay in float32, as float16 has no number above 65,504.
    """
    return op.Cast(numbers, to=like.dtype or ir.DataType.FLOAT)


_LEAST_NORMAL_HALF = 2.0**-14
"""Float16 holds smaller numbers to less than its usual precision."""


def mean_of(op: OpBuilder, total: ir.Value, count: npt.ArrayLike | ir.Value) -> ir.Value:
    """`total` divided by the number of its terms.

    A large number divides by its root, twice, also in float32: the file may be converted to
    float16, which holds neither a number above 65,504 nor its reciprocal.

    Args:
        count: known, and then of any shape that broadcasts to that of `total`; or an int64 scalar
            that the processor computes of sizes.
    """
    if isinstance(count, ir.Value):
        root = op.Sqrt(op.Squeeze(floats_like(op, on_device(op, count), total), [0]))
        return op.Div(op.Div(total, root), root)
    share = 1 / np.asarray(count, np.float64)
    if share.min(initial=1) >= _LEAST_NORMAL_HALF:
        return op.Mul(total, constant(op, share, total))
    root = constant(op, np.sqrt(share), total)
    return op.Mul(op.Mul(total, root), root)
