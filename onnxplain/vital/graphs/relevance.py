"""How relevant the positions of earlier layers are to a neuron (VITAL, §3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.autodiff import pull_back
from onnxplain.export.methods import get_method
from onnxplain.export.tensors import rank
from onnxplain.vital.graphs.matching import channel_axis, channels_first, one_hot_channel


def relevance(
    op: OpBuilder,
    layers: Sequence[ir.Value],
    neuron: ir.Value,
    channel: ir.Value,
    image: ir.Value,
    kind: str,
) -> list[ir.Value]:
    """How relevant each of `layers` is to a channel of another layer: a map [N, C, P] for each.

    Args:
        neuron: the layer that has the channel, [N, C, h, w], [N, h, w, C], [N, P, C] or [N, C].
        channel: int64 [N].
        kind: one of `onnxplain.vital.settings.RELEVANCES`. For the neuron's own layer, where that
            is one of `layers`, guided backpropagation is 1 all over the channel: `scaled` makes it
            0, so that this layer has no part in what is matched.

    Raises:
        SourceError: the neuron does not depend on one of `layers`.
        NoRuleError: an operator on the way has no rule for relevance.
    """
    seed = _start(op, neuron, channel, image, kind)
    rules = get_method("guided" if kind == "guided" else "lrp-zplus").rules()
    maps = pull_back(op, {neuron: seed}, layers, rules)
    return [
        channels_first(op, map_, layer, image) for map_, layer in zip(maps, layers, strict=True)
    ]


def _start(
    op: OpBuilder, neuron: ir.Value, channel: ir.Value, image: ir.Value, kind: str
) -> ir.Value:
    """1 all over the channel for `guided`; otherwise its activation, everywhere or in one place."""
    axis = channel_axis(neuron, image)
    hot = one_hot_channel(op, channel, neuron, image)
    others = [a for a in range(1 - rank(neuron), 0) if a != axis]
    hot = op.Unsqueeze(hot, others) if others else hot
    if kind == "guided":
        seed = op.Expand(hot, op.Shape(neuron))
        seed.shape = neuron.shape  # inference does not see through Shape
        return seed
    alone = op.Mul(neuron, hot)
    if kind == "lrp" or not others:
        return alone
    tiny = float(np.finfo(np.float32).tiny)
    here = op.ReduceSum(alone, [axis], keepdims=1)
    length = op.Max(op.ReduceL2(neuron, [axis], keepdims=1), tiny)
    cosine = op.Div(here, length)
    best = op.ReduceMax(cosine, others, keepdims=1)
    return op.Mul(alone, op.CastLike(op.Equal(cosine, best), neuron))


def scaled(op: OpBuilder, maps: ir.Value) -> ir.Value:
    """Relevance maps [N, C, P], each scaled so that its positions go from 0 to 1.

    A map that is the same everywhere, as one of a single position is, becomes 0.
    """
    least, greatest = (
        reduction(maps, [-1], keepdims=1) for reduction in (op.ReduceMin, op.ReduceMax)
    )
    tiny = float(np.finfo(np.float32).tiny)
    return op.Div(op.Sub(maps, least), op.Max(op.Sub(greatest, least), tiny))
