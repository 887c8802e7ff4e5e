"""Channels weighed without a gradient: by what the objective becomes, once the network is asked
again for each of them.

All channels are asked for in one `Loop`, whose body is that part of the network which depends on
what is changed: all of it, or what comes after the layer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.errors import SourceError
from onnxplain.export.autodiff import between, dependents
from onnxplain.export.count import multiply_adds
from onnxplain.export.grids import Layer
from onnxplain.export.loops import check_together, chunks, looped
from onnxplain.export.parameters import Count
from onnxplain.export.replay import replay
from onnxplain.export.subgraphs import operands
from onnxplain.export.tensors import dims, integers, rank, size_of

CHUNK = Count("chunk", 1, "the most channels that are asked for at once, as one batch")


@dataclass(frozen=True)
class Channels:
    """Some channels of a layer.

    Attributes:
        op: emits what depends on them.
        image: [N, …].
        layer: whose they are.
        A: its activations as a map, [N, …].
        which: int64 [c].
    """

    op: OpBuilder
    image: ir.Value
    layer: Layer
    A: ir.Value
    which: ir.Value


@dataclass(frozen=True)
class Probe:
    """How a map's channels are weighed.

    Attributes:
        changed: what is put in the place of the image, or of the layer, for each channel: c changes
            of all samples along its batch axis, one channel's after the other's.
        weights: `(op, s, s_k)` → [.., N, C], of the objective [.., N, 1] and of what it becomes,
            [.., N, C].
        of_image: whether it is the image that is changed, not the layer.
        cost: of a channel, in forward passes, in words.
    """

    changed: Callable[[Channels], ir.Value]
    weights: Callable[[OpBuilder, ir.Value, ir.Value], ir.Value]
    of_image: bool
    cost: str


class Explained(NamedTuple):
    """The objective of each sample, [N] or [N, K], and what fixes of what it is one.

    Attributes:
        of_class: whether it is a classifier's.
    """

    scalar: ir.Value
    fixed: Sequence[ir.Value]
    of_class: bool


def weigh(
    layer: Layer, op: OpBuilder, probe: Probe, image: ir.Value, explained: Explained, chunk: int
) -> tuple[ir.Value, int]:
    """The weights of a layer's channels, to be multiplied by its map: [N, 1, 1, C] or
    [N, C, 1, 1], of several targets [K, N, …]; and what they cost, in multiply-adds per image,
    besides what is counted of the nodes.

    Raises:
        SourceError: the objective does not depend on the layer; or several channels at once cannot
            be asked for.
    """
    nodes, scalar = list(op.builder.graph), explained.scalar
    at = image if probe.of_image else layer.value
    replayed = between(nodes, [at], [scalar])
    if not replayed:
        raise SourceError(f"the output does not depend on {at.name}")
    A = layer.laid_out(op, layer.value)
    count = size_of(A, layer.axes[2])
    check_together(chunk, explained.of_class, image, replayed)
    size = chunks(count, chunk)
    kept: Collection[ir.Value] = explained.fixed
    if size > 1:
        kept = {*kept, *_beside(nodes, replayed, at, image)} - {at}
        replayed = nodes  # shapes that are told of the image too
    beside = {value: op.Concat(*[value] * size, axis=0) if size > 1 else value for value in kept}
    offsets = integers(op, np.arange(size))
    shape = op.Shape(scalar)

    def turn(
        inner: OpBuilder, number: ir.Value, _: Sequence[ir.Value]
    ) -> tuple[list[ir.Value], list[ir.Value]]:
        which = inner.Add(inner.Mul(number, size), offsets)
        x = probe.changed(Channels(inner, image, layer, A, which))
        axis = 0 if probe.of_image else layer.batch_axis
        sizes = [None if size > 1 and i == axis else n for i, n in enumerate(dims(at))]
        x.type, x.shape = at.type, ir.Shape(sizes)
        s = replay(inner, replayed, {at: x, **beside})[scalar]
        each = inner.Reshape(s, inner.Concat([size], shape, axis=0))
        each.type, each.shape = scalar.type, ir.Shape([size, *dims(scalar)])
        return [], [each]

    _, (found,) = looped(op, count // size, [], turn, "channel")
    whole = op.Reshape(found, op.Concat([count], shape, axis=0))  # [C, N] or [C, N, K]
    backwards = list(range(1 + rank(scalar)))[::-1]
    s_k = op.Transpose(whole, perm=backwards)
    s = op.Transpose(scalar, perm=[1, 0]) if rank(scalar) > 1 else scalar
    w = probe.weights(op, op.Unsqueeze(s, [-1]), s_k)
    turns = count // size  # what is counted of the nodes: each turn as if of one image
    cost = (count - turns) * multiply_adds(between(nodes, [at], [scalar]))
    return op.Unsqueeze(w, sorted(layer.axes[:2])), cost


def _beside(
    nodes: Sequence[ir.Node], replayed: Sequence[ir.Node], at: ir.Value, image: ir.Value
) -> set[ir.Value]:
    """What else the replayed nodes read of the samples, the batch first; and the image, of which
    shapes are told."""
    active, made = dependents(nodes, [image]), {y for node in replayed for y in node.outputs}
    read = {x for node in replayed for x in operands(node) if x in active and x not in made}
    of_samples = {x for x in read if x is not None and not isinstance((dims(x) or [0])[0], int)}
    for x in read - of_samples - {at}:
        if x is not None and x.dtype is not ir.DataType.INT64:
            raise SourceError(
                f"chunk above 1 repeats what the layers behind read of each image, and the batch "
                f"is no axis of {x.name!r} {x.shape}; leave it out"
            )
    return {image, *of_samples}
