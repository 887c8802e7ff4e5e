"""The two graphs of a feature visualisation: what references show a network, and a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript import GraphBuilder, OpBuilder

from onnxplain import __version__
from onnxplain.contract import IMAGE, TARGET, Metadata, Preprocessing
from onnxplain.errors import SourceError
from onnxplain.export.autodiff import dependents, pull_back
from onnxplain.export.canonical.canonicalise import canonicalise
from onnxplain.export.canonical.ends import image_axes, image_size
from onnxplain.export.composites import without_gradient
from onnxplain.export.heads import one_hot
from onnxplain.export.layers import layer_name, value_named
from onnxplain.export.lower import lower
from onnxplain.export.pipeline import clean, preprocessing, write
from onnxplain.export.sources.source import Source, read
from onnxplain.export.tensors import constant, dims, rank, size_of
from onnxplain.export.vital.adam import adam
from onnxplain.export.vital.fourier import picture
from onnxplain.export.vital.matching import channel_axis, channels_first, extent, sort_matching
from onnxplain.export.vital.priors import priors
from onnxplain.export.vital.relevance import check_relevance, relevance, scaled
from onnxplain.export.vital.stages import pick_layers
from onnxplain.export.vjps import VJPS
from onnxplain.steps import (
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
    MatchedLayer,
    StepMetadata,
    following,
    importance,
    quantity,
    template,
)

OBJECTIVES = ("distribution", "activation")
"""What is optimised: VITAL's alignment, or the neuron's activation (its maximisation, to compare
with)."""


@dataclass(frozen=True)
class Subject:
    """A network to be visualised.

    Attributes:
        model: its canonical forward.
        source: what was read.
        pre: how a photograph becomes its input.
        activation: what makes its logits probabilities.
        layers: names of the values that are matched, in the graph; and of the same, for people.
        neuron: the same of the layer whose channels are visualised; None for a class.
    """

    model: ir.Model
    source: Source
    pre: Preprocessing
    activation: str
    layers: dict[str, str]
    neuron: tuple[str, str] | None

    def neurons(self) -> int:
        """How many neurons there are to choose from: classes, or channels of the layer."""
        graph = self.model.graph
        if self.neuron is None:
            return size_of(graph.outputs[0], 1)
        layer = _named(graph, self.neuron[0])
        return size_of(layer, channel_axis(layer, graph.inputs[0]))


def read_subject(
    source: Any,
    *,
    weights: str = "DEFAULT",
    example: Any = None,
    size: tuple[int, int] | None = None,
    layers: Sequence[str] = (),
    neuron: str | None = None,
) -> Subject:
    """Read a network and find its layers.

    Args:
        source, weights, example: as for `onnxplain.export`.
        size: height and width in pixels.
        layers: to be matched, by name, from the image on; picked where none are given.
        neuron: the layer of an inner neuron. Matched layers behind it are left out.

    Raises:
        SourceError: the network cannot be read; no such layer; a layer without channels.
    """
    wanted = [*layers, *([] if neuron is None else [neuron])]
    found = read(source, weights, example, size, wanted)
    kept = [str(value_named(found.model.graph, name).name) for name in found.layers]
    canonical = canonicalise(found.model, size, keep=kept)
    graph = canonical.model.graph
    image = graph.inputs[0]
    for name, value in zip(wanted, kept, strict=True):
        _check_layer(name, _named(graph, value))
    chosen = dict(zip(kept, layers, strict=False))
    if not layers:
        chosen = {str(value.name): layer_name(value) for value in pick_layers(graph)}
    last = None if neuron is None else (kept[-1], neuron)
    if last is not None:
        after = dependents(graph, [_named(graph, last[0])]) - {_named(graph, last[0])}
        chosen = {name: own for name, own in chosen.items() if _named(graph, name) not in after}
        if not chosen:
            raise SourceError(f"no matched layer comes before {neuron!r}; give some with --layers")
    pre = preprocessing(image, found.preprocessing)
    return Subject(canonical.model, found, pre, canonical.activation, chosen, last)


def write_features(subject: Subject, path: Path, how: str = "lrp") -> None:
    """Write the graph that references run through.

    In: `image`, and `channel` for a neuron. Out: `logits`; of each layer `quantity_i` [N, C, P],
    the activations, for a neuron times their relevance (see `onnxplain.export.vital.relevance`);
    and then `importance_i` [N, C], the greatest relevance of each channel.

    Raises:
        SourceError, NoRuleError: the relevance cannot be found in this network.
    """
    graph, op, layers = _begin(subject, how)
    image = graph.inputs[0]
    head = len(graph)
    maps = _relevance(op, subject, layers, how)
    quantities = _quantities(op, layers, image, maps)
    importances = [] if maps is None else [op.ReduceMax(m, [-1], keepdims=0) for m in maps]
    named = {quantity(i): q for i, q in enumerate(quantities)}
    named |= {importance(i): m for i, m in enumerate(importances)}
    for name, value in named.items():
        _output(op, value, name)
    lower(op, list(graph)[head:])
    _finish(subject, op, layers, path, {}, how)


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
    steps' learning rates, shifts and mirrorings, weights and templates; see `onnxplain.steps`. Out:
    the state one step on, each `next_…`; with `fourier` the picture too, `rendered`.

    A step: roll the picture (and mirror it), run the network, find the relevance where it is an
    inner neuron's, match each layer's distribution, add the priors, go back to the picture, undo
    the roll, Adam, and clip to what pixels can be.

    Raises:
        SourceError, NoRuleError: an operator has no rule.
    """
    graph, op, layers = _begin(subject, how)
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
        loss = _alignment(op, subject, layers, image, how)
    else:
        loss = _activation(op, subject, image)
    loss = op.Add(loss, priors(op, rolled, _input(op, PRIORS, image.dtype, [3])))
    ones = op.Add(op.Mul(loss, 0.0), 1.0)
    (g,) = pull_back(op, {loss: ones}, [rolled], VJPS)
    g = _roll(op, g, ways.back, image)
    magnitude = op.Add(state[MAGNITUDE], op.Abs(g))
    if fourier:
        (g,) = pull_back(op, {seen: g}, [moving], VJPS)
    rate = _row(op, _input(op, LEARNING_RATES, image.dtype, [_steps()]), now)
    t = op.CastLike(op.Add(now, 1), rate)
    x, m, v = adam(op, moving, g, (state[FIRST_MOMENT], state[SECOND_MOMENT]), rate, t)
    if not fourier:
        x = _clip(op, x, subject.pre)
    moved = {
        (SPECTRUM if fourier else IMAGE): x,
        FIRST_MOMENT: m,
        SECOND_MOMENT: v,
        MAGNITUDE: magnitude,
        STEP: op.Add(state[STEP], 1),
        LOSSES: op.ScatterElements(
            state[LOSSES], op.Expand(now, op.Shape(op.Unsqueeze(loss, [0]))),
            op.Unsqueeze(loss, [0]), axis=0,
        ),
    }  # fmt: skip
    graph.outputs.clear()
    for name, value in moved.items():
        _output(op, value, following(name))
    if fourier:
        _output(op, picture(op, x, subject.pre), RENDERED)
    lower(op, list(graph)[head:])
    _finish(subject, op, layers, path, {following(name): name for name in moved}, how)


@dataclass(frozen=True)
class _Ways:
    """Indices of rows and of columns, to roll (and mirror) a picture, and back."""

    there: tuple[ir.Value, ir.Value]
    back: tuple[ir.Value, ir.Value]


def _begin(subject: Subject, how: str) -> tuple[ir.Graph, OpBuilder, list[ir.Value]]:
    check_relevance(how)
    model = subject.model.clone()
    graph = model.graph
    builder = GraphBuilder(graph)
    builder.push_module("step")
    return graph, builder.op, [_named(graph, name) for name in subject.layers]


def _finish(
    subject: Subject,
    op: OpBuilder,
    layers: Sequence[ir.Value],
    path: Path,
    carried: dict[str, str],
    how: str,
) -> None:
    graph = op.builder.graph
    graph.sort()
    image = subject.model.graph.inputs[0]
    matched = tuple(
        MatchedLayer(name, *extent(layer, image))
        for name, layer in zip(subject.layers.values(), layers, strict=True)
    )
    model = ir.Model(
        graph, ir_version=subject.model.ir_version, functions=[], producer_name="onnxplain",
        producer_version=__version__,
    )  # fmt: skip
    clean(model)
    about = Metadata(
        version=__version__,
        method="vital",
        source=subject.source.name,
        preprocessing=subject.pre,
        activation=subject.activation,
        labels=subject.source.labels,
    )
    neuron = None if subject.neuron is None else subject.neuron[1]
    batch = dims(image)[0]
    step = StepMetadata(
        matched,
        neuron,
        carried,
        None if neuron is None else how,
        batch if isinstance(batch, int) else str(batch.value),
    )
    model.metadata_props.update(about.to_props() | step.to_props())
    write(model, path)


def _state(op: OpBuilder, image: ir.Value, fourier: bool) -> dict[str, ir.Value]:
    moving = list(dims(image))
    state = {}
    if fourier:
        height, width, channels = image_size(image)
        moving = [moving[0], 2, channels, height, width // 2 + 1]
        state[SPECTRUM] = _input(op, SPECTRUM, image.dtype, moving)
    for name in (FIRST_MOMENT, SECOND_MOMENT):
        state[name] = _input(op, name, image.dtype, moving)
    state[MAGNITUDE] = _input(op, MAGNITUDE, image.dtype, dims(image))
    state[STEP] = _input(op, STEP, ir.DataType.INT64, [])
    state[LOSSES] = _input(op, LOSSES, image.dtype, [_steps(), dims(image)[0]])
    return state


def _alignment(
    op: OpBuilder, subject: Subject, layers: Sequence[ir.Value], image: ir.Value, how: str
) -> ir.Value:
    """Σ_l w_l · the sort matching of layer l, [N]."""
    batch = dims(image)[0]
    maps = _relevance(op, subject, layers, how)
    weights = _input(op, WEIGHTS, image.dtype, [len(layers)])
    total = None
    for i, q in enumerate(_quantities(op, layers, image, maps)):
        channels, positions = extent(layers[i], image)
        sorted_ = _input(op, template(i), image.dtype, [batch, channels, positions])
        each = None if maps is None else _input(op, importance(i), image.dtype, [batch, channels])
        loss = op.Mul(sort_matching(op, q, sorted_, each), op.Slice(weights, [i], [i + 1], [0]))
        total = loss if total is None else op.Add(total, loss)
    assert total is not None
    return total


def _relevance(
    op: OpBuilder, subject: Subject, layers: Sequence[ir.Value], how: str
) -> list[ir.Value] | None:
    """The relevance of each layer to the neuron, [N, C, P]; None for a class."""
    if subject.neuron is None:
        return None
    image = subject.model.graph.inputs[0]
    channel = _input(op, CHANNEL, ir.DataType.INT64, [dims(image)[0]])
    neuron = _named(op.builder.graph, subject.neuron[0])
    return relevance(op, layers, neuron, channel, image, how)


def _quantities(
    op: OpBuilder,
    layers: Sequence[ir.Value],
    image: ir.Value,
    maps: Sequence[ir.Value] | None,
) -> list[ir.Value]:
    """What is matched: the activations, for a neuron times their scaled relevance, constant."""
    activations = [channels_first(op, layer, layer, image) for layer in layers]
    if maps is None:
        return activations
    return [
        op.Mul(without_gradient(op, scaled(op, m)), a)
        for m, a in zip(maps, activations, strict=True)
    ]


def _activation(op: OpBuilder, subject: Subject, image: ir.Value) -> ir.Value:
    """−1 × the target's logit, or the channel's mean activation, [N]."""
    graph, batch = op.builder.graph, dims(image)[0]
    if subject.neuron is None:
        (logits,) = graph.outputs
        target = _input(op, TARGET, ir.DataType.INT64, [batch])
        hot = without_gradient(op, one_hot(op, logits, target))
        return op.Neg(op.ReduceSum(op.Mul(logits, hot), [-1], keepdims=0))
    layer = _named(graph, subject.neuron[0])
    channel = _input(op, CHANNEL, ir.DataType.INT64, [batch])
    axis = channel_axis(layer, image)
    others = [a for a in range(1 - rank(layer), 0) if a != axis]
    means = op.ReduceMean(layer, others, keepdims=0) if others else layer
    hot = op.CastLike(op.OneHot(channel, size_of(layer, axis), [0.0, 1.0], axis=-1), layer)
    return op.Neg(op.ReduceSum(op.Mul(means, hot), [-1], keepdims=0))


def _ways(op: OpBuilder, now: ir.Value, image: ir.Value) -> _Ways:
    """Roll by this step's shift, then mirror if it says so; all of the batch alike.

    Mirrored, column c is σ c − (1 − σ)/2 with σ = −1, modulo the width.
    """
    shift = op.Squeeze(op.Gather(_input(op, SHIFTS, ir.DataType.INT64, [_steps(), 2]), now), [0])
    mirrored = op.Gather(_input(op, MIRRORED, ir.DataType.INT64, [_steps()]), now)
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


def _row(op: OpBuilder, table: ir.Value, now: ir.Value) -> ir.Value:
    return op.Gather(table, now)


def _steps() -> ir.SymbolicDim:
    return ir.SymbolicDim(STEPS)


def _input(op: OpBuilder, name: str, dtype: ir.DataType | None, shape: Sequence[Any]) -> ir.Value:
    return op.builder.input(name, dtype, list(shape))


def _output(op: OpBuilder, value: ir.Value, name: str) -> None:
    value.name = name
    op.builder.graph.outputs.append(value)


def _named(graph: ir.Graph, name: str) -> ir.Value:
    return next(y for node in graph for y in node.outputs if y.name == name)


def _check_layer(name: str, layer: ir.Value) -> None:
    if rank(layer) not in (2, 3, 4):
        raise SourceError(f"the layer {name!r} is {layer.shape}, and not channels of a picture")
