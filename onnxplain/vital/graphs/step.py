"""One step of a feature visualisation's optimisation, as one graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.contract import steps
from onnxplain.contract.explain import IMAGE, TARGET, Preprocessing
from onnxplain.errors import SourceError
from onnxplain.export.autodiff import pull_back
from onnxplain.export.canonical.ends import image_axes, image_size
from onnxplain.export.composites import without_gradient
from onnxplain.export.heads import one_hot
from onnxplain.export.lower import lower
from onnxplain.export.operators import VJPS
from onnxplain.export.tensors import constant, dims, size_of
from onnxplain.vital.graphs.adam import BETAS, adam
from onnxplain.vital.graphs.features import DEFAULT, quantities, relevances
from onnxplain.vital.graphs.fourier import picture
from onnxplain.vital.graphs.matching import (
    channels_first,
    extent,
    of_all,
    one_hot_channel,
    sort_matching,
)
from onnxplain.vital.graphs.priors import priors
from onnxplain.vital.graphs.subject import Subject, feed, value_of
from onnxplain.vital.graphs.writing import add_input, add_output, begin, finish
from onnxplain.vital.settings import Flow

OBJECTIVES = ("distribution", "activation")
"""What is optimised: VITAL's alignment of distributions, or for comparison the neuron's activation,
which is maximised."""


def write_step(
    subject: Subject,
    path: Path,
    *,
    objective: str = "distribution",
    flow: Flow = DEFAULT,
    together: int = 1,
    fourier: bool = False,
    betas: tuple[float, float] = BETAS,
    clip: bool = True,
) -> None:
    """Write one step of the optimisation, for N pictures at once.

    Inputs: what is optimised (`image`, or with `fourier` `spectrum`), the rest of the state, the
    steps' learning rates, shifts and mirrorings, the weights and the templates; see
    `onnxplain.contract.steps`. Outputs: the state after the step, each as `next_…`; with `fourier`
    also the picture, `rendered`.

    A step rolls the picture (and mirrors it), runs the network, finds the relevance if an inner
    neuron is visualised, matches each layer's distribution, adds the priors, takes the gradient
    back to the picture, undoes the roll, makes a step of Adam, and clips to valid pixels.

    Args:
        objective: one of `OBJECTIVES`.
        flow: how relevance comes from a neuron to the layers.
        together: pictures of each class, one after the other, whose mean activations are aligned;
            each has the loss of all of them.
        betas: Adam's.
        clip: whether the picture is clipped to valid pixels.
        fourier: whether the picture's spectrum is optimised.

    Raises:
        SourceError: an unknown objective; a matched layer without positions; several pictures
            together, but not for the alignment of a class.
        NoRuleError: an operator has no rule.
    """
    if objective not in OBJECTIVES:
        raise SourceError(f"no objective {objective!r}; choose one of {', '.join(OBJECTIVES)}")
    if together > 1 and (objective != "distribution" or subject.neuron is not None):
        raise SourceError("pictures are aligned together for a class alone")
    graph, op, layers = begin(subject)
    if objective == "activation":
        layers = {}
    image, network = graph.inputs[0], list(graph)
    seen = image if subject.seen is None else value_of(graph, subject.seen)
    state = _state(op, image, fourier)
    optimised = state[steps.SPECTRUM] if fourier else image
    shown = _rendered(op, optimised, subject.pre, image) if fourier else seen
    now = op.Reshape(state[steps.STEP], [1])
    shift = _shift(op, now, seen)
    rolled = _roll(op, shown, shift.there, seen)
    feed(network, seen, rolled)
    graph.sort()

    head = len(graph)
    matched = list(layers.values())
    if objective == "distribution":
        loss = _alignment(op, subject, matched, image, flow, together)
    else:
        loss = _activation(op, subject, image)
    weights = add_input(op, steps.PRIORS, image.dtype, [3])
    loss = op.Add(loss, priors(op, rolled, weights, together))
    g = _roll(op, _gradient(op, loss, rolled, together), shift.back, seen)
    if seen is not image:
        (g,) = pull_back(op, {seen: g}, [image], VJPS)
    magnitude = op.Add(state[steps.MAGNITUDE], op.Abs(g))
    if fourier:
        (g,) = pull_back(op, {shown: g}, [optimised], VJPS)
    rate = op.Gather(add_input(op, steps.LEARNING_RATES, image.dtype, [_steps()]), now)
    t = op.CastLike(op.Add(now, 1), rate)
    moments = state[steps.FIRST_MOMENT], state[steps.SECOND_MOMENT]
    x, m, v = adam(op, optimised, g, moments, rate, t, betas)
    if clip and not fourier:
        x = _clip(op, x, subject.pre)
    row = op.Unsqueeze(loss, [0])
    moved = {
        (steps.SPECTRUM if fourier else IMAGE): x,
        steps.FIRST_MOMENT: m,
        steps.SECOND_MOMENT: v,
        steps.MAGNITUDE: magnitude,
        steps.STEP: op.Add(state[steps.STEP], 1),
        steps.LOSSES: op.ScatterElements(
            state[steps.LOSSES], op.Expand(now, op.Shape(row)), row, axis=0
        ),
    }
    graph.outputs.clear()
    for name, value in moved.items():
        add_output(op, value, steps.following(name))
    if fourier:
        add_output(op, picture(op, x, subject.pre), steps.RENDERED)
    lower(op, list(graph)[head:])
    finish(subject, op, layers, path, {steps.following(name): name for name in moved}, flow)


@dataclass(frozen=True)
class _Shift:
    """Row and column indices that roll (and mirror) a picture, and those that undo it."""

    there: tuple[ir.Value, ir.Value]
    back: tuple[ir.Value, ir.Value]


def _state(op: OpBuilder, image: ir.Value, fourier: bool) -> dict[str, ir.Value]:
    moving = list(dims(image))
    state = {}
    if fourier:
        height, width, channels = image_size(image)
        moving = [moving[0], 2, channels, height, width // 2 + 1]
        state[steps.SPECTRUM] = add_input(op, steps.SPECTRUM, image.dtype, moving)
    for name in (steps.FIRST_MOMENT, steps.SECOND_MOMENT):
        state[name] = add_input(op, name, image.dtype, moving)
    state[steps.MAGNITUDE] = add_input(op, steps.MAGNITUDE, image.dtype, dims(image))
    state[steps.STEP] = add_input(op, steps.STEP, ir.DataType.INT64, [])
    state[steps.LOSSES] = add_input(op, steps.LOSSES, image.dtype, [_steps(), dims(image)[0]])
    return state


def _rendered(op: OpBuilder, spectrum: ir.Value, pre: Preprocessing, image: ir.Value) -> ir.Value:
    """The picture of a spectrum, in place of the input `image`."""
    op.builder.graph.inputs.remove(image)
    rendered = picture(op, spectrum, pre)
    rendered.shape = image.shape
    return rendered


def _gradient(op: OpBuilder, loss: ir.Value, x: ir.Value, together: int) -> ir.Value:
    """∂ Σ loss / ∂ x, one loss of so many pictures counting once."""
    ones = op.Add(op.Mul(loss, 0.0), 1.0 / together)
    (g,) = pull_back(op, {loss: ones}, [x], VJPS)
    return g


def _alignment(
    op: OpBuilder,
    subject: Subject,
    layers: Sequence[ir.Value],
    image: ir.Value,
    flow: Flow,
    together: int,
) -> ir.Value:
    """Σ_l w_l · the sort matching of layer l, or of the mean of so many pictures together, [N]."""
    batch = dims(image)[0]
    maps = relevances(op, subject, layers, flow)
    weights = add_input(op, steps.WEIGHTS, image.dtype, [len(layers)])
    total = None
    for i, q in enumerate(quantities(op, layers, image, maps)):
        channels, positions = extent(layers[i], image)
        q = of_all(op, q, together, op.ReduceMean)
        sorted_ = add_input(op, steps.template(i), image.dtype, [batch, channels, positions])
        each = (
            None
            if maps is None
            else add_input(op, steps.importance(i), image.dtype, [batch, channels])
        )
        loss = op.Mul(sort_matching(op, q, sorted_, each), op.Slice(weights, [i], [i + 1], [0]))
        total = loss if total is None else op.Add(total, loss)
    assert total is not None
    return total


def _activation(op: OpBuilder, subject: Subject, image: ir.Value) -> ir.Value:
    """−1 × the target's logit, or × the channel's mean activation, [N]."""
    graph, batch = op.builder.graph, dims(image)[0]
    if subject.neuron is None:
        (logits,) = graph.outputs
        target = add_input(op, TARGET, ir.DataType.INT64, [batch])
        hot = without_gradient(op, one_hot(op, logits, target))
        return op.Neg(op.ReduceSum(op.Mul(logits, hot), [-1], keepdims=0))
    layer = value_of(graph, subject.neuron[0])
    channel = add_input(op, steps.CHANNEL, ir.DataType.INT64, [batch])
    means = op.ReduceMean(channels_first(op, layer, layer, image), [-1], keepdims=0)
    hot = one_hot_channel(op, channel, layer, image)
    return op.Neg(op.ReduceSum(op.Mul(means, hot), [-1], keepdims=0))


def _shift(op: OpBuilder, now: ir.Value, image: ir.Value) -> _Shift:
    """Roll by this step's shift, then mirror if this step does; the whole batch alike.

    Mirrored, column c becomes σ c − (1 − σ)/2 with σ = −1, modulo the width.
    """
    shift = op.Squeeze(
        op.Gather(add_input(op, steps.SHIFTS, ir.DataType.INT64, [_steps(), 2]), now), [0]
    )
    mirrored = op.Gather(add_input(op, steps.MIRRORED, ir.DataType.INT64, [_steps()]), now)
    height, width = (size_of(image, axis) for axis in image_axes(image)[:2])
    down, right = (op.Slice(shift, [i], [i + 1], [0]) for i in (0, 1))
    rows, columns = (op.Range(0, size, 1) for size in (height, width))
    sign = op.Sub(1, op.Mul(mirrored, 2))

    def turned(at: ir.Value) -> ir.Value:
        return op.Sub(op.Mul(at, sign), mirrored)

    return _Shift(
        (op.Mod(op.Sub(rows, down), height), op.Mod(op.Sub(turned(columns), right), width)),
        (op.Mod(op.Add(rows, down), height), op.Mod(turned(op.Add(columns, right)), width)),
    )


def _roll(
    op: OpBuilder, x: ir.Value, indices: tuple[ir.Value, ir.Value], image: ir.Value
) -> ir.Value:
    for along, axis in zip(indices, image_axes(image)[:2], strict=True):
        x = op.Gather(x, along, axis=axis)
    x.shape, x.type = image.shape, image.type
    return x


def _clip(op: OpBuilder, x: ir.Value, pre: Preprocessing) -> ir.Value:
    """Clip to pixels between 0 and 1, in the network's normalised space."""
    per_channel = [-1, 1, 1] if pre.layout == "NCHW" else [-1]
    mean, std = (np.array(values).reshape(per_channel) for values in (pre.mean, pre.std))
    black, white = (constant(op, (level - mean) / std, x) for level in (0.0, 1.0))
    return op.Max(op.Min(x, white), black)


def _steps() -> ir.SymbolicDim:
    return ir.SymbolicDim(steps.STEPS)
