"""The graph that a neuron search runs images through."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
from onnxscript import GraphBuilder

from onnxplain.contract.channels import ChannelLayer, ChannelsMetadata, maximum, mean, position
from onnxplain.contract.explain import LOGITS
from onnxplain.export.canonical.ends import rename
from onnxplain.export.finish import clean, write
from onnxplain.export.layers import spatial_axes
from onnxplain.export.tensors import dims, rank, size_of
from onnxplain.vital.graphs.matching import channel_axis, channels_first
from onnxplain.vital.graphs.receptive import receptive_field
from onnxplain.vital.graphs.subject import Subject, value_of


def write_channels(subject: Subject, path: Path, *, logits: bool = False) -> None:
    """Write the graph that gives each channel's maximum, where it is, and its mean.

    The layer searched is the neuron's where the subject has one; otherwise the matched layers are.
    Input: `image`. Outputs for layer i: `maximum_i` [N, C], `position_i` int64 [N, C] and `mean_i`
    [N, C]; `onnxplain.contract.channels` says what they mean, and what else the file carries. The
    network after the layers is left out.

    Args:
        logits: whether to give `logits` [N, classes] too, and with them keep the whole network.

    Raises:
        InputError: the path cannot be written.
    """
    model = subject.model.clone()
    graph = model.graph
    builder = GraphBuilder(graph)
    builder.push_module("channels")
    op = builder.op
    image = graph.inputs[0]
    (scores,) = graph.outputs
    wanted = subject.layers if subject.neuron is None else dict([subject.neuron])
    named, layers = {}, []
    for i, (value, name) in enumerate(wanted.items()):
        layer = value_of(graph, value)
        layers.append(_described(graph, layer, name))
        maps = channels_first(op, layer, layer, image)
        named[maximum(i)] = op.ReduceMax(maps, [-1], keepdims=0)
        named[position(i)] = op.ArgMax(maps, axis=-1, keepdims=0)
        named[mean(i)] = op.ReduceMean(maps, [-1], keepdims=0)
    graph.outputs.clear()
    for name, value in named.items():
        rename(value, name)
        graph.outputs.append(value)
    if logits:
        rename(scores, LOGITS)
        graph.outputs.append(scores)
    graph.sort()
    clean(model)
    batch = dims(image)[0]
    own = ChannelsMetadata(tuple(layers), batch if isinstance(batch, int) else None)
    model.metadata_props.update(subject.metadata("channels").to_props() | own.to_props())
    write(model, path)


def _described(graph: ir.Graph, layer: ir.Value, name: str) -> ChannelLayer:
    image = graph.inputs[0]
    channels = size_of(layer, channel_axis(layer, image))
    if rank(layer) == 4:
        height, width, _ = spatial_axes(layer, image)
        grid = size_of(layer, height), size_of(layer, width)
    else:
        grid = (1, size_of(layer, 1)) if rank(layer) == 3 else (1, 1)
    return ChannelLayer(name, channels, grid, receptive_field(graph, layer))
