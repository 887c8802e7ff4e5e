"""A step of a feature visualisation's optimisation as one graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.contract.explain import IMAGE, TARGET, Preprocessing
from onnxplain.contract.steps import (
    CHANNEL,
    FIRST_MOMENT,
    LEARNING_RATES,
    LOSSES,
    MAGNITUDE,
    MIRRORED,
    PRIORS,
    RENDERED,
    SECOND_MOMENT,
    SHIFTS,
    SPECTRUM,
    STEP,
    STEPS,
    WEIGHTS,
    following,
    importance,
    template,
)
from onnxplain.errors import SourceError
from onnxplain.export.autodiff import pull_back
from onnxplain.export.canonical.ends import image_axes, image_size
from onnxplain.export.composites import without_gradient
from onnxplain.export.heads import one_hot
from onnxplain.export.lower import lower
from onnxplain.export.tensors import constant, dims, size_of
from onnxplain.export.vjps import VJPS
from onnxplain.vital.graphs.adam import adam
from onnxplain.vital.graphs.features import quantities, relevances
from onnxplain.vital.graphs.fourier import picture
from onnxplain.vital.graphs.matching import channels_first, extent, one_hot_channel, sort_matching
from onnxplain.vital.graphs.priors import priors
from onnxplain.vital.graphs.subject import Subject, value_of
from onnxplain.vital.graphs.writing import add_input, add_output, begin, finish

OBJECTIVES = ("distribution", "activation")
"""What is optimised: VITAL's alignment, or the neuron's activation (its maximisation, to compare
with)."""


def write_step(
    subject: Subject,
    path: Path,
    *,
    objective: str = "distribution",
    how: str = "lrp",
    fourier: bool = False,
) -> None:
    """Write a step of the optimisation, for N pictures at once.

    In: what is optimised (`image`, or with `fourier` `spectrum`) and the rest of the state, the
    steps' learning rates, shifts and mirrorings, weights and templates; see
    `onnxplain.contract.steps`. Out: the state one step on, each `next_…`; with `fourier` the
    picture too, `rendered`.

    A step: roll the picture (and mirror it), run the network, find the relevance where it is an
    inner neuron's, match each layer's distribution, add the priors, go back to the picture, undo
    the roll, Adam, and clip to what pixels can be.

    Args:
        objective: one of `OBJECTIVES`.
        how: the layers' relevance to a neuron, one of `onnxplain.vital.settings.RELEVANCES`.
        fourier: what is optimised is the picture's spectrum.

    Raises:
        SourceError: no such objective or relevance; a matched layer has no positions.
        NoRuleError: an operator has no rule.
    """
    if objective not in OBJECTIVES:
        raise SourceError(f"no objective {objective!r}; choose one of {', '.join(OBJECTIVES)}")
    graph, op, layers = begin(subject, how)
    if objective == "activation":
        layers = {}
    image = graph.inputs[0]
    own_nodes = list(graph)
    state = _state(op, image, fourier)
    moving = state[SPECTRUM] if fourier else image
    seen = image
    if fourier:
        graph.inputs.remove(image)
        rendered = picture(op, moving, subject.pre)
        rendered.shape = image.shape
        seen = rendered
    now = op.Reshape(state[STEP], [1])
    ways = _ways(op, now, image)
    rolled = _roll(op, seen, ways.there, image)
    for node in own_nodes:
        for index, x in enumerate(node.inputs):
            if x is image:
                node.replace_input_with(index, rolled)
    graph.sort()

    head = len(graph)
    if objective == "distribution":
        loss = _alignment(op, subject, list(layers.values()), image, how)
    else:
        loss = _activation(op, subject, image)
    loss = op.Add(loss, priors(op, rolled, add_input(op, PRIORS, image.dtype, [3])))
    ones = op.Add(op.Mul(loss, 0.0), 1.0)
    (g,) = pull_back(op, {loss: ones}, [rolled], VJPS)
    g = _roll(op, g, ways.back, image)
    magnitude = op.Add(state[MAGNITUDE], op.Abs(g))
    if fourier:
        (g,) = pull_back(op, {seen: g}, [moving], VJPS)
    rate = op.Gather(add_input(op, LEARNING_RATES, image.dtype, [_steps()]), now)
    t = op.CastLike(op.Add(now, 1), rate)
    x, m, v = adam(op, moving, g, (state[FIRST_MOMENT], state[SECOND_MOMENT]), rate, t)
    if not fourier:
        x = _clip(op, x, subject.pre)
    row = op.Unsqueeze(loss, [0])
    moved = {
        (SPECTRUM if fourier else IMAGE): x,
        FIRST_MOMENT: m,
        SECOND_MOMENT: v,
        MAGNITUDE: magnitude,
        STEP: op.Add(state[STEP], 1),
        LOSSES: op.ScatterElements(state[LOSSES], op.Expand(now, op.Shape(row)), row, axis=0),
    }
    graph.outputs.clear()
    for name, value in moved.items():
        add_output(op, value, following(name))
    if fourier:
        add_output(op, picture(op, x, subject.pre), RENDERED)
    lower(op, list(graph)[head:])
    finish(subject, op, layers, path, {following(name): name for name in moved}, how)


@dataclass(frozen=True)
class _Ways:
    """Indices of rows and of columns, to roll (and mirror) a picture, and back."""

    there: tuple[ir.Value, ir.Value]
    back: tuple[ir.Value, ir.Value]


def _state(op: OpBuilder, image: ir.Value, fourier: bool) -> dict[str, ir.Value]:
    moving = list(dims(image))
    state = {}
    if fourier:
        height, width, channels = image_size(image)
        moving = [moving[0], 2, channels, height, width // 2 + 1]
        state[SPECTRUM] = add_input(op, SPECTRUM, image.dtype, moving)
    for name in (FIRST_MOMENT, SECOND_MOMENT):
        state[name] = add_input(op, name, image.dtype, moving)
    state[MAGNITUDE] = add_input(op, MAGNITUDE, image.dtype, dims(image))
    state[STEP] = add_input(op, STEP, ir.DataType.INT64, [])
    state[LOSSES] = add_input(op, LOSSES, image.dtype, [_steps(), dims(image)[0]])
    return state


def _alignment(
    op: OpBuilder, subject: Subject, layers: Sequence[ir.Value], image: ir.Value, how: str
) -> ir.Value:
    """Σ_l w_l · the sort matching of layer l, [N]."""
    batch = dims(image)[0]
    maps = relevances(op, subject, layers, how)
    weights = add_input(op, WEIGHTS, image.dtype, [len(layers)])
    total = None
    for i, q in enumerate(quantities(op, layers, image, maps)):
        channels, positions = extent(layers[i], image)
        sorted_ = add_input(op, template(i), image.dtype, [batch, channels, positions])
        each = (
            None if maps is None else add_input(op, importance(i), image.dtype, [batch, channels])
        )
        loss = op.Mul(sort_matching(op, q, sorted_, each), op.Slice(weights, [i], [i + 1], [0]))
        total = loss if total is None else op.Add(total, loss)
    assert total is not None
    return total


def _activation(op: OpBuilder, subject: Subject, image: ir.Value) -> ir.Value:
    """−1 × the target's logit, or the channel's mean activation, [N]."""
    graph, batch = op.builder.graph, dims(image)[0]
    if subject.neuron is None:
        (logits,) = graph.outputs
        target = add_input(op, TARGET, ir.DataType.INT64, [batch])
        hot = without_gradient(op, one_hot(op, logits, target))
        return op.Neg(op.ReduceSum(op.Mul(logits, hot), [-1], keepdims=0))
    layer = value_of(graph, subject.neuron[0])
    channel = add_input(op, CHANNEL, ir.DataType.INT64, [batch])
    means = op.ReduceMean(channels_first(op, layer, layer, image), [-1], keepdims=0)
    hot = one_hot_channel(op, channel, layer, image)
    return op.Neg(op.ReduceSum(op.Mul(means, hot), [-1], keepdims=0))


def _ways(op: OpBuilder, now: ir.Value, image: ir.Value) -> _Ways:
    """Roll by this step's shift, then mirror if it says so; all of the batch alike.

    Mirrored, column c is σ c − (1 − σ)/2 with σ = −1, modulo the width.
    """
    shift = op.Squeeze(op.Gather(add_input(op, SHIFTS, ir.DataType.INT64, [_steps(), 2]), now), [0])
    mirrored = op.Gather(add_input(op, MIRRORED, ir.DataType.INT64, [_steps()]), now)
    height, width = (size_of(image, axis) for axis in image_axes(image)[:2])
    down, right = (op.Slice(shift, [i], [i + 1], [0]) for i in (0, 1))
    rows, columns = (op.Range(0, size, 1) for size in (height, width))
    sign = op.Sub(1, op.Mul(mirrored, 2))

    def turned(at: ir.Value) -> ir.Value:
        return op.Sub(op.Mul(at, sign), mirrored)

    return _Ways(
        (op.Mod(op.Sub(rows, down), height), op.Mod(op.Sub(turned(columns), right), width)),
        (op.Mod(op.Add(rows, down), height), op.Mod(turned(op.Add(columns, right)), width)),
    )


def _roll(op: OpBuilder, x: ir.Value, way: tuple[ir.Value, ir.Value], image: ir.Value) -> ir.Value:
    for indices, axis in zip(way, image_axes(image)[:2], strict=True):
        x = op.Gather(x, indices, axis=axis)
    x.shape, x.type = image.shape, image.type
    return x


def _clip(op: OpBuilder, x: ir.Value, pre: Preprocessing) -> ir.Value:
    """To pixels from 0 to 1, in the network's space."""
    per_channel = [-1, 1, 1] if pre.layout == "NCHW" else [-1]
    mean, std = (np.array(values).reshape(per_channel) for values in (pre.mean, pre.std))
    black, white = (constant(op, (level - mean) / std, x) for level in (0.0, 1.0))
    return op.Max(op.Min(x, white), black)


def _steps() -> ir.SymbolicDim:
    return ir.SymbolicDim(STEPS)
