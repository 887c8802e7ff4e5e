"""How relevant the positions of earlier layers are to a neuron (VITAL, §3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.autodiff import pull_back
from onnxplain.export.methods import get_method
from onnxplain.export.tensors import rank
from onnxplain.vital.graphs.matching import channel_axis, channels_first, extent, one_hot_channel
from onnxplain.vital.graphs.rules import rules_of
from onnxplain.vital.settings import Flow

EPSILON = 1e-6
"""VITAL's, added to what relevances and importances are divided by."""

_COSINE_EPSILON = 1e-8  # the least norm, as `torch.nn.CosineSimilarity` has it


def relevance(
    op: OpBuilder,
    layers: Sequence[ir.Value],
    neuron: ir.Value,
    channel: ir.Value,
    image: ir.Value,
    flow: Flow,
) -> list[ir.Value]:
    """How relevant each of `layers` is to a channel of another layer: a map [N, C, P] for each.

    Args:
        neuron: the layer that has the channel, [N, C, h, w], [N, h, w, C], [N, P, C] or [N, C].
        channel: int64 [N].
        flow: how. The neuron's own layer, where that is one of `layers`, has the same guided
            relevance all over the channel: `scaled` makes it 0, so that this layer has no part in
            what is matched.

    Raises:
        SourceError: the neuron does not depend on one of `layers`.
        NoRuleError: an operator on the way has no rule for relevance.
    """
    seed = _start(op, neuron, channel, image, flow.kind)
    guided = flow.kind == "guided"
    rules = get_method("guided").rules() if guided else rules_of(flow)
    maps = pull_back(op, {neuron: seed}, layers, rules)
    if guided:  # each layer as if a ReLU came before it
        maps = [op.Relu(map_) for map_ in maps]
    return [
        channels_first(op, map_, layer, image) for map_, layer in zip(maps, layers, strict=True)
    ]


def _start(
    op: OpBuilder, neuron: ir.Value, channel: ir.Value, image: ir.Value, kind: str
) -> ir.Value:
    """What the sweep starts from, 0 but for the channel.

    lrp: its activation; restricted: 1 where the cosine of all channels with this one alone is
    greatest, the first such position; guided: the gradient of its mean.
    """
    axis = channel_axis(neuron, image)
    hot = one_hot_channel(op, channel, neuron, image)
    others = [a for a in range(1 - rank(neuron), 0) if a != axis]
    hot = op.Unsqueeze(hot, others) if others else hot
    if kind == "lrp":
        return op.Mul(neuron, hot)
    if kind == "guided":
        seed = op.Expand(op.Mul(hot, 1 / extent(neuron, image)[1]), op.Shape(neuron))
    else:
        here = op.ReduceSum(op.Mul(neuron, hot), [axis], keepdims=1)
        length = op.Max(op.ReduceL2(neuron, [axis], keepdims=1), _COSINE_EPSILON)
        seed = op.Mul(_first_greatest(op, op.Div(here, length), extent(neuron, image)[1]), hot)
    seed.shape = neuron.shape  # inference does not see through Shape
    return seed


def _first_greatest(op: OpBuilder, x: ir.Value, positions: int) -> ir.Value:
    """1 at each image's first greatest element of x, which has one for each position, else 0."""
    best = op.ArgMax(op.Reshape(x, [-1, positions]), axis=-1, keepdims=0)
    hot = op.CastLike(op.OneHot(best, positions, [0.0, 1.0], axis=-1), x)
    return op.Reshape(hot, op.Shape(x))


def scaled(op: OpBuilder, maps: ir.Value) -> ir.Value:
    """(R − min R) / (max R − min R + ε) along the last axis: from 0 to 1, or 0 if all are equal."""
    above = op.Sub(maps, op.ReduceMin(maps, [-1], keepdims=1))
    return op.Div(above, op.Add(op.ReduceMax(above, [-1], keepdims=1), EPSILON))
