"""The two ends of the backward pass: from a target to the cotangent of the logits, and from the
cotangent of the image to the graph's output."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.contract.precision import ARRIVED
from onnxplain.export.attended import Attended
from onnxplain.export.grids import Layer, resized_to
from onnxplain.export.methods.method import ActivationMap, AttentionMap
from onnxplain.export.provenance import named_after
from onnxplain.export.tensors import constant, integers, rank, size_of


def one_hot(op: OpBuilder, logits: ir.Value, target: ir.Value) -> ir.Value:
    """The cotangent of the logits [N, classes]: 1 at each image's target class, else 0.

    Args:
        target: int64 [N], or [N, K]; a negative one counts from the top of the ranking.

    Returns:
        [N, classes], or [N, K, classes].
    """
    classes = size_of(logits, 1)
    chosen = chosen_class(op, logits, target)
    return op.CastLike(op.OneHot(chosen, classes, [0.0, 1.0], axis=-1), logits)


def chosen_class(op: OpBuilder, scores: ir.Value, target: ir.Value) -> ir.Value:
    """The classes of targets, none negative: -1 is the one with the highest score.

    A negative target counts from the top of the ranking. The classes in falling order of their
    scores [N, classes], indexed by -target - 1, hold the answer, and where the target is not
    negative that index is one from the end, in range for just the same classes: a target outside
    [-classes, classes) is an error of the runtime's, never a silent zero.

    Args:
        target: int64 [N], or [N, K], which the result is like.
    """
    _, ranking = op.TopK(scores, [size_of(scores, 1)], _outputs=2)
    if target.shape is not None and len(target.shape) == 1:
        by_rank = op.GatherElements(ranking, op.Unsqueeze(_rank(op, target), [1]), axis=1)
        by_rank = op.Squeeze(by_rank, [1])
    else:
        by_rank = op.GatherElements(ranking, _rank(op, target), axis=1)
    return op.Where(op.Less(target, 0), by_rank, target)


def _rank(op: OpBuilder, target: ir.Value) -> ir.Value:
    return op.Sub(-1, target)


def arrived(op: OpBuilder, g: ir.Value) -> ir.Value:
    """A cotangent, at the end of its sweep or before it, for what need not be linear in it."""
    with named_after(op, ARRIVED):
        return op.Identity(g)


def activation_map(
    op: OpBuilder,
    formula: ActivationMap,
    layers: Sequence[Layer],
    gs: Sequence[ir.Value],
    image: ir.Value,
    nhwc: bool,
) -> ir.Value:
    """ReLU of a class activation map, upsampled bilinearly to the image; of several layers the mean
    of such maps, each scaled to [0, 1] before, as pytorch-grad-cam's.

    Args:
        layers: whose activations it is made of.
        gs: what each is weighed by, such as its cotangent, laid out as it is; or with an axis K
            before.
        nhwc: where the axis of the one channel goes, last or before height and width.

    Returns:
        [N, 1, H, W], or [N, K, 1, H, W]; [N, H, W, 1] or [N, K, H, W, 1] where `nhwc`.
    """
    several, highs = rank(gs[0]) > 4, []
    for layer, g in zip(layers, gs, strict=True):
        low = op.Relu(formula(op, layer.laid_out(op, layer.value), g, layer.axes))
        if len(layers) > 1:
            low = op.Sub(low, op.ReduceMin(low, [-2, -1], keepdims=1))
            low = op.Div(low, op.Add(op.ReduceMax(low, [-2, -1], keepdims=1), 1e-7))
        low = op.Transpose(low, perm=[1, 0, 2, 3]) if several else op.Unsqueeze(low, [1])
        highs.append(resized_to(op, low, image))
    high = highs[0] if len(highs) == 1 else op.Div(op.Sum(*highs), float(len(highs)))
    return _with_one_channel(op, high, several, nhwc)


def attention_map(
    op: OpBuilder,
    formula: AttentionMap,
    attended: Attended,
    gs: Sequence[ir.Value],
    image: ir.Value,
    nhwc: bool,
) -> ir.Value:
    """What the tokens that are read saw of those of the grid, upsampled bilinearly to the image.

    Args:
        gs: the cotangents of the layers' attention, of its shape or with an axis K before it.
        nhwc: as for `activation_map`, and so is what is returned.
    """
    (first, last), tokens, weights = attended.read, attended.tokens, attended.asked
    row = np.zeros([1, tokens.count])
    row[:, first : last + 1] = 1 / (last + 1 - first)
    r = formula(op, constant(op, row, weights[0]), weights, gs)
    several = rank(gs[0]) > rank(weights[0])
    if several and rank(r) == 3:  # of no class
        r = op.Expand(r, op.Concat(op.Shape(gs[0], start=0, end=1), op.Shape(r), axis=0))
    low = op.Gather(r, integers(op, np.array(tokens.order)), axis=-1)
    low = op.Reshape(low, [0, 0, tokens.height, tokens.width])
    if several:
        low = op.Transpose(low, perm=[1, 0, 2, 3])
    return _with_one_channel(op, resized_to(op, low, image), several, nhwc)


def _with_one_channel(op: OpBuilder, high: ir.Value, several: bool, nhwc: bool) -> ir.Value:
    """[N, 1, H, W], or of several targets [N, K, H, W], with the channel where it goes."""
    if several:
        return op.Unsqueeze(high, [-1 if nhwc else 2])
    return op.Transpose(high, perm=[0, 2, 3, 1]) if nhwc else high
