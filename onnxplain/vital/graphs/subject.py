"""The network to visualise, with its matched layers and the neuron's layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
from onnx_ir.passes import common

from onnxplain.building import Builder
from onnxplain.contract.explain import IMAGE, LOGITS, Metadata, Preprocessing
from onnxplain.contract.request import ExportOptions
from onnxplain.errors import SourceError
from onnxplain.export.autodiff import dependents
from onnxplain.export.canonical.canonicalise import canonicalise
from onnxplain.export.canonical.ends import image_axes
from onnxplain.export.describe import preprocessing
from onnxplain.export.layers import home_of, value_named
from onnxplain.export.sources.source import Source, read
from onnxplain.export.tensors import dims, rank, size_of
from onnxplain.suggest import nearest
from onnxplain.version import __version__
from onnxplain.vital.graphs.matching import channel_axis
from onnxplain.vital.graphs.stages import pick_layers
from onnxplain.vital.recipes import recipe_of


@dataclass(frozen=True)
class Subject:
    """The network to visualise.

    Attributes:
        model: its canonical forward pass.
        source: what was read.
        pre: how a photograph becomes its input.
        activation: what turns its logits into probabilities.
        layers: the matched layers: the value's name in the graph → its name for people.
        neuron: the same pair of names for the layer whose channels are visualised; None for a
            class.
        seen: the value that stands between the picture and the network; None for the picture.
    """

    model: ir.Model
    source: Source
    pre: Preprocessing
    activation: str
    layers: dict[str, str]
    neuron: tuple[str, str] | None
    seen: str | None = None

    def metadata(self, method: str) -> Metadata:
        """What a graph made from it says about the network."""
        return Metadata(
            version=__version__,
            method=method,
            source=self.source.name,
            preprocessing=self.pre,
            activation=self.activation,
            labels=self.source.labels,
        )

    def neurons(self) -> int:
        """How many neurons there are to choose from: classes, or the layer's channels."""
        graph = self.model.graph
        if self.neuron is None:
            return size_of(graph.outputs[0], 1)
        layer = value_of(graph, self.neuron[0])
        return size_of(layer, channel_axis(layer, graph.inputs[0]))


def read_subject(
    source: Any,
    *,
    weights: str = "DEFAULT",
    example: Any = None,
    size: tuple[int, int] | None = None,
    layers: Sequence[str] = (),
    neuron: str | None = None,
    fold_norms: bool = True,
) -> Subject:
    """Read a network and find its layers.

    Args:
        source, weights, example: as for `onnxplain.export`.
        size: height and width in pixels.
        layers: names of the layers to match, in order from the image on. If none are given, those
            of the network's recipe are taken; a network without a recipe has its layers picked.
        neuron: the layer of an inner neuron, or of the logits. Matched layers that come after it
            are left out.
        fold_norms: whether a BatchNorm goes into the convolution before it, so that the relevance
            of that one is by the product of both weights.

    Raises:
        SourceError: the network cannot be read, or computes in float64; an unknown layer, or one
            without channels.
    """
    layers = layers or _recipe_layers(source)
    wanted = [*layers, *([] if neuron is None else [neuron])]
    found = read(source, weights, example, size, wanted, fold_norms)
    kept = [str(value_named(found.model.graph, name).name) for name in found.layers]
    canonical = canonicalise(found.model, size, keep=kept, fold_norms=fold_norms)
    graph = canonical.model.graph
    image = graph.inputs[0]
    if image.dtype != ir.DataType.FLOAT:
        raise SourceError(
            f"the network computes in {str(image.dtype).lower()}, and pictures are float32; "
            "convert it (a PyTorch module: `module.float()`) and read it again"
        )
    kept = [LOGITS if value == canonical.logits else value for value in kept]
    for name, value in zip(wanted, kept, strict=True):
        _check_layer(graph, name, value)
    chosen = dict(zip(kept, layers, strict=False))
    if not layers:
        chosen = {str(value.name): _own_name(graph, value) for value in pick_layers(graph)}
    last = None if neuron is None else (kept[-1], neuron)
    if last is not None:
        after = dependents(graph, [value_of(graph, last[0])]) - {value_of(graph, last[0])}
        chosen = {name: own for name, own in chosen.items() if value_of(graph, name) not in after}
        if not chosen:
            raise SourceError(f"no matched layer comes before {neuron!r}; give some with layers=")
    pre = preprocessing(image, found.preprocessing, ExportOptions())
    return Subject(canonical.model, found, pre, canonical.activation, chosen, last)


def pooled(subject: Subject, pre: Preprocessing) -> Subject:
    """The subject, which sees pictures of twice its size averaged over 2 × 2 pixels.

    Args:
        pre: for the pictures.
    """
    model = subject.model.clone()
    graph = model.graph
    (image,), network = graph.inputs, list(graph)
    graph.inputs.clear()
    builder = Builder(graph)
    builder.push_module("pooled")
    op = builder.op
    sizes = dims(image)
    for axis in image_axes(image)[:2]:
        sizes[axis] *= 2
    picture = builder.input(IMAGE, image.dtype, sizes)
    last = pre.layout == "NHWC"
    first = op.Transpose(picture, perm=[0, 3, 1, 2]) if last else picture
    seen = op.AveragePool(first, kernel_shape=[2, 2], strides=[2, 2])
    seen = op.Transpose(seen, perm=[0, 2, 3, 1]) if last else seen
    seen.shape, seen.type = image.shape, image.type
    feed(network, image, seen)
    graph.sort()
    common.ShapeInferencePass()(model)
    return replace(subject, model=model, pre=pre, seen=str(seen.name))


def feed(network: Sequence[ir.Node], image: ir.Value, other: ir.Value) -> None:
    """Make the network's nodes read `other` in place of `image`."""
    for node in network:
        for index, x in enumerate(node.inputs):
            if x is image:
                node.replace_input_with(index, other)


def value_of(graph: ir.Graph, name: str) -> ir.Value:
    """The graph's value of that name, which must exist."""
    return next(y for node in graph for y in node.outputs if y.name == name)


def _recipe_layers(source: Any) -> Sequence[str]:
    by_name = isinstance(source, str) and not Path(source).exists()
    recipe = recipe_of(source) if by_name else None
    return () if recipe is None else recipe.layers


def _own_name(graph: ir.Graph, layer: ir.Value) -> str:
    """A name that `value_named` finds the value by: its module's, if it is the module's output."""
    name = home_of(layer)
    return name if value_named(graph, name) is layer else str(layer.name)


def _check_layer(graph: ir.Graph, name: str, value: str) -> None:
    """Check that the layer `name`, the graph's `value`, is still there and has channels."""
    active = dependents(graph, [graph.inputs[0]])
    found = {str(y.name): y for node in graph for y in node.outputs if y in active}
    if value not in found:
        others = {home_of(y) for y in found.values() if rank(y) in (2, 3, 4)}
        raise SourceError(
            f"the layer {name!r} is not part of the simplified network: it does not lead from the "
            f"image to the logits, or lies within an operation; {nearest(name, sorted(others))}"
        )
    layer = found[value]
    if rank(layer) not in (2, 3, 4):
        raise SourceError(f"the layer {name!r} is {layer.shape}: it has no channels")
