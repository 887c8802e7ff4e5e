"""The graph that references run through: how the matched layers respond to them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.contract.steps import CHANNEL, importance, quantity
from onnxplain.export.composites import without_gradient
from onnxplain.export.lower import lower
from onnxplain.export.tensors import dims
from onnxplain.vital.graphs.matching import channels_first
from onnxplain.vital.graphs.relevance import relevance, scaled
from onnxplain.vital.graphs.subject import Subject, value_of
from onnxplain.vital.graphs.writing import add_input, add_output, begin, finish
from onnxplain.vital.settings import Flow

DEFAULT = Flow()


def write_features(subject: Subject, path: Path, flow: Flow = DEFAULT) -> None:
    """Write the graph that references run through.

    Inputs: `image`, and for a neuron `channel`. Outputs: `logits`, and `quantity_i` [N, C, P] for
    each layer: its activations, for a neuron times their relevance (see
    `onnxplain.vital.graphs.relevance`). For a neuron also `importance_i` [N, C], the greatest
    relevance in each channel, from 0 to 1 over an image's channels.

    Raises:
        SourceError: a matched layer without positions.
        NoRuleError: relevance cannot be propagated through this network.
    """
    graph, op, layers = begin(subject)
    image = graph.inputs[0]
    head = len(graph)
    maps = relevances(op, subject, list(layers.values()), flow)
    matched = quantities(op, list(layers.values()), image, maps)
    greatest = [op.ReduceMax(m, [-1], keepdims=0) for m in maps or []]
    importances = [scaled(op, each) for each in greatest]
    named = {quantity(i): q for i, q in enumerate(matched)}
    named |= {importance(i): m for i, m in enumerate(importances)}
    for name, value in named.items():
        add_output(op, value, name)
    lower(op, list(graph)[head:])
    finish(subject, op, layers, path, {}, flow)


def relevances(
    op: OpBuilder, subject: Subject, layers: Sequence[ir.Value], flow: Flow
) -> list[ir.Value] | None:
    """The relevance of each layer to the neuron, [N, C, P]; None for a class."""
    if subject.neuron is None:
        return None
    image = subject.model.graph.inputs[0]
    channel = add_input(op, CHANNEL, ir.DataType.INT64, [dims(image)[0]])
    neuron = value_of(op.builder.graph, subject.neuron[0])
    return relevance(op, layers, neuron, channel, image, flow)


def quantities(
    op: OpBuilder,
    layers: Sequence[ir.Value],
    image: ir.Value,
    maps: Sequence[ir.Value] | None,
) -> list[ir.Value]:
    """What is matched: the activations; for a neuron times their scaled relevance, a constant."""
    activations = [channels_first(op, layer, layer, image) for layer in layers]
    if maps is None:
        return activations
    return [
        op.Mul(without_gradient(op, scaled(op, m)), a)
        for m, a in zip(maps, activations, strict=True)
    ]
