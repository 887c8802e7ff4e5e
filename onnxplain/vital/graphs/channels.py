"""The graph that a neuron search runs images through."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.building import Builder
from onnxplain.contract.channels import ChannelLayer, ChannelsMetadata, maximum, mean, position
from onnxplain.contract.explain import LOGITS
from onnxplain.errors import SourceError
from onnxplain.export.canonical.ends import rename
from onnxplain.export.finish import clean, write
from onnxplain.export.layers import spatial_axes
from onnxplain.export.lower import stay_on_gpu
from onnxplain.export.tensors import dims, rank, size_of
from onnxplain.vital.graphs.matching import channel_axis, channels_first
from onnxplain.vital.graphs.patches import Patches, all_patches, patches_of
from onnxplain.vital.graphs.receptive import receptive_field
from onnxplain.vital.graphs.subject import Subject, feed, value_of


def write_channels(
    subject: Subject, path: Path, *, logits: bool = False, patch: int | None = None
) -> None:
    """Write the graph that gives each channel's maximum, where it is, and its mean.

    The layer searched is the neuron's where the subject has one; otherwise the matched layers are.
    Input: `image`. Outputs for layer i: `maximum_i` [N, C], `position_i` int64 [N, C] and `mean_i`
    [N, C]; `onnxplain.contract.channels` says what they mean, and what else the file carries. The
    network after the layers is left out.

    Args:
        logits: whether to give `logits` [N, classes] too, and with them keep the whole network.
        patch: the side in pixels of a window that slides over the image; each time it is the
            network's whole input. The mean and the maximum are then the greatest of any patch,
            and the position says in which patch the mean is.

    Raises:
        InputError: the path cannot be written; a patch larger than the image.
        SourceError: patches, for a network that takes a fixed number of images.
    """
    model = subject.model.clone()
    graph = model.graph
    builder = Builder(graph)
    builder.push_module("channels")
    op = builder.op
    image = graph.inputs[0]
    (scores,) = graph.outputs
    patches = None if patch is None else _slide(op, graph, patch)
    wanted = subject.layers if subject.neuron is None else dict([subject.neuron])
    named, layers = {}, []
    for i, (value, name) in enumerate(wanted.items()):
        layer = value_of(graph, value)
        maps = channels_first(op, layer, layer, image)
        means = op.ReduceMean(maps, [-1], keepdims=0)
        if patches is None:
            layers.append(_described(graph, layer, name))
            named[position(i)] = op.ArgMax(maps, axis=-1, keepdims=0)
        else:
            channels = size_of(layer, channel_axis(layer, image))
            layers.append(ChannelLayer(name, channels, patches.grid, patches.field))
            each = op.Reshape(means, [-1, patches.count, channels])
            named[position(i)] = op.ArgMax(each, axis=1, keepdims=0)
            means = op.ReduceMax(each, [1], keepdims=0)
            maps = op.Reshape(op.ReduceMax(maps, [-1], keepdims=0), [-1, patches.count, channels])
            maps = op.Transpose(maps, perm=[0, 2, 1])
        named[maximum(i)] = op.ReduceMax(maps, [-1], keepdims=0)
        named[mean(i)] = means
    graph.outputs.clear()
    for name, value in named.items():
        rename(value, name)
        graph.outputs.append(value)
    if logits:
        rename(scores, LOGITS)
        graph.outputs.append(scores)
    graph.sort()
    stay_on_gpu(op)
    clean(model)
    batch = dims(image)[0]
    own = ChannelsMetadata(tuple(layers), batch if isinstance(batch, int) else None)
    model.metadata_props.update(subject.metadata("channels").to_props() | own.to_props())
    write(model, path)


def _slide(op: OpBuilder, graph: ir.Graph, side: int) -> Patches:
    """Let the network see the patches of its input in place of it."""
    image, network = graph.inputs[0], list(graph)
    if isinstance(dims(image)[0], int):
        raise SourceError("this network takes a fixed number of images, and so no patches of them")
    patches = patches_of(image, side)
    feed(network, image, all_patches(op, image, patches))
    return patches


def _described(graph: ir.Graph, layer: ir.Value, name: str) -> ChannelLayer:
    image = graph.inputs[0]
    channels = size_of(layer, channel_axis(layer, image))
    if rank(layer) == 4:
        height, width, _ = spatial_axes(layer, image)
        grid = size_of(layer, height), size_of(layer, width)
    else:
        grid = (1, size_of(layer, 1)) if rank(layer) == 3 else (1, 1)
    return ChannelLayer(name, channels, grid, receptive_field(graph, layer))
