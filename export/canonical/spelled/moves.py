"""Operators that choose elements or put them elsewhere, and running products of them."""

from __future__ import annotations

from functools import partial
from itertools import accumulate

import numpy as np
import onnx_ir as ir

from onnxplain.errors import SourceError
from onnxplain.export.canonical.emit import Emitted, Emitter, check_rounds, integers, split
from onnxplain.export.tensors import array_of, attribute, rank, size_of, static


def space_to_depth(emit: Emitter, node: ir.Node) -> Emitted:
    """With the `mode` of opset 28: DCR puts the block index first among the output channels, CRD
    the channel.
    """
    (x,) = node.inputs
    assert x is not None
    block = attribute(node, "blocksize", 1)
    y = emit("SpaceToDepth", x, blocksize=block)
    if node.attributes.get_string("mode", "DCR") == "DCR":
        return y
    channels, height, width = static(x, 1)
    out = height // block, width // block
    y = emit("Reshape", y, integers(-1, block**2, channels, *out))
    y = emit("Transpose", y, perm=[0, 2, 1, 3, 4])
    return emit("Reshape", y, integers(-1, channels * block**2, *out))


def determinant(emit: Emitter, node: ir.Node) -> Emitted:
    """Of matrices of a few rows: along the first, each element times its cofactor (Laplace)."""
    (x,) = node.inputs
    assert x is not None
    n = size_of(x, -1)
    if n > 4:
        raise SourceError(f"Det {node.name!r} is of {n} rows; 4 are the most that is spelled out")

    def of(row: int, columns: list[int]) -> ir.Value:
        terms: list[ir.Value] = []
        for i, column in enumerate(columns):
            line = emit("Gather", x, np.array(row), axis=-2)
            term = emit("Gather", line, np.array(column), axis=-1)
            if rest := columns[:i] + columns[i + 1 :]:
                term = emit("Mul", term, of(row + 1, rest))
            terms.append(emit("Neg", term) if i % 2 else term)
        return terms[0] if len(terms) == 1 else emit("Sum", *terms)

    return of(0, list(range(n)))


def array_feature_extractor(emit: Emitter, node: ir.Node) -> Emitted:
    """Gather along the last axis; a vector becomes a row."""
    x, index = node.inputs
    assert x is not None
    y = emit("Gather", x, emit("Reshape", index, integers(-1)), axis=-1)
    return emit("Unsqueeze", y, integers(0)) if rank(x) == 1 else y


def is_there(node: ir.Node) -> bool:
    """Whether an OptionalGetElement is given a tensor, or one made optional."""
    return isinstance(_given(node).type, ir.TensorType)


def optional_get_element(emit: Emitter, node: ir.Node) -> Emitted:
    """What is there itself."""
    return emit("Identity", _given(node))


def _given(node: ir.Node) -> ir.Value:
    (x,) = node.inputs
    assert x is not None
    wrapped = x.producer()
    if wrapped is not None and wrapped.op_type == "Optional" and wrapped.inputs:
        return wrapped.inputs[0] or x
    return x


def compress(emit: Emitter, node: ir.Node) -> Emitted:
    """Gather of the places where the condition holds."""
    x, condition = node.inputs
    places = emit("Squeeze", emit("NonZero", condition), integers(0))
    if "axis" in node.attributes:
        return emit("Gather", x, places, axis=attribute(node, "axis", 0))
    return emit("Gather", emit("Reshape", x, integers(-1)), places)


def tensor_scatter(emit: Emitter, node: ir.Node) -> Emitted:
    """ScatterElements along the axis of a cache, from an index on that each batch element has."""
    past, update, starts = [*node.inputs, None][:3]
    assert past is not None
    assert update is not None
    axis = attribute(node, "axis", -2) % rank(past)
    behind = rank(past) - axis - 1
    places = np.arange(size_of(update, axis)).reshape(-1, *[1] * behind)
    if starts is None:
        index = emit("Expand", places, emit("Shape", update))
    else:
        at = emit("Unsqueeze", starts, integers(*range(1, rank(past))))
        index = emit("Expand", emit("Add", at, places), emit("Shape", update))
    if node.attributes.get_string("mode", "linear") == "circular":
        index = emit("Mod", index, np.array(size_of(past, axis)))
    return emit("ScatterElements", past, index, update, axis=axis)


def reverse_sequence(emit: Emitter, node: ir.Node) -> Emitted:
    """Each batch element's first steps, as many as it is told, from the last of them to the first.

    As GatherElements along the axis of time.
    """
    x, lengths = node.inputs
    assert x is not None
    time, batch = attribute(node, "time_axis", 0), attribute(node, "batch_axis", 1)
    around = [1] * rank(x)
    around[time] = size_of(x, time)
    step = np.arange(size_of(x, time)).reshape(around)
    length = emit("Unsqueeze", lengths, integers(*(i for i in range(rank(x)) if i != batch)))
    mirrored = emit("Sub", emit("Sub", length, np.array(1)), step)
    index = emit("Where", emit("Less", step, length), mirrored, step)
    return emit("GatherElements", x, emit("Expand", index, emit("Shape", x)), axis=time)


def cumulative_product(emit: Emitter, node: ir.Node) -> Emitted:
    """One product after the other."""
    x, given = node.inputs
    axis = array_of(given)
    assert x is not None
    if axis is None:
        raise SourceError(f"CumProd {node.name!r} is told its axis at run time; make it a constant")
    at = int(axis.item())
    check_rounds(node, size_of(x, at))
    parts = split(emit, x, at)
    if attribute(node, "reverse", 0):
        parts = parts[::-1]
    if attribute(node, "exclusive", 0):
        one = emit("CastLike", np.array(1, np.float32), x)
        parts = [emit("Expand", one, emit("Shape", parts[0])), *parts[:-1]]
    found = list(accumulate(parts, partial(emit, "Mul")))
    return emit("Concat", *(found[::-1] if attribute(node, "reverse", 0) else found), axis=at)
