"""Relevance under a condition: what of it goes through some channels of a layer (Concept Relevance
Propagation, Achtibat et al. 2023, Nature Machine Intelligence 5, arXiv 2206.03208)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.contract.explain import Metadata
from onnxplain.contract.objective import CHANNELS, CONCEPTS, ObjectiveInput
from onnxplain.errors import SourceError
from onnxplain.export import places
from onnxplain.export.autodiff import between
from onnxplain.export.grids import Layer, placed
from onnxplain.export.layers import is_spatial, layer_name, spatial_axes
from onnxplain.export.methods import Method
from onnxplain.export.tensors import dims, rank


@dataclass(frozen=True)
class Concepts:
    """A layer whose channels the input `concepts` weighs.

    Attributes:
        value: what it puts out, with the batch as its first axis.
        axis: that of its channels, counted from the end.
    """

    value: ir.Value
    axis: int

    @property
    def count(self) -> int:
        """How many channels there are."""
        return places.sizes_of(self.value)[self.axis]

    def weighed(self, op: OpBuilder, R: ir.Value, weights: ir.Value) -> ir.Value:
        """The relevance R of the layer, each channel times its weight [N, C]."""
        behind = list(range(2, 1 - self.axis))
        before = list(range(1, rank(self.value) - 1 - len(behind)))
        axes = [*before, *(len(before) + axis for axis in behind)]
        return op.Mul(R, op.Unsqueeze(weights, axes) if axes else weights)

    def of_each(self, op: OpBuilder, method: Method, R: ir.Value) -> ir.Value:
        """The relevance of each channel, [N, C]; of R with an axis K before, [N, K, C]. Where the
        sweep carries a gradient, its product with the layer is relevance."""
        if method.relevance is None:
            R = op.Mul(R, self.value)
        others = [axis for axis in range(1 - rank(self.value), 0) if axis != self.axis]
        total = op.ReduceSum(R, others, keepdims=0) if others else R
        return op.Transpose(total, perm=[1, 0, 2]) if rank(R) > rank(self.value) else total


def behind_norm(value: ir.Value) -> ir.Value:
    """What a BatchNorm makes of a value that nothing else reads: it has the same channels, each of
    the same relevance, and may become part of the layer."""
    match list(value.uses()):
        case [(ir.Node(op_type="BatchNormalization") as node, 0)]:
            return node.outputs[0]
    return value


def concepts_of(graph: ir.Graph, name: str) -> Concepts:
    """The layer of that name in a canonical graph.

    Raises:
        SourceError: it is gone, or which of its axes is that of the channels is not to be seen.
    """
    value = next((y for node in graph for y in node.outputs if y.name == name), None)
    if value is None:
        raise SourceError(
            f"the layer's output {name!r} is not part of the simplified network: give another with "
            "concept_layer="
        )
    image = graph.inputs[0]
    if dims(value)[0] == dims(image)[0]:
        if rank(value) == 2:
            return Concepts(value, -1)
        found = places.of(graph, between(graph, [image], [value]), [value])
        layer = placed(value, found.get(value))
        if isinstance(layer, Layer) and len(layer.channel_axes) == 1:
            return Concepts(value, layer.channel_axes[0] - rank(value))
        if is_spatial(value):
            return Concepts(value, spatial_axes(value, image)[2])
    raise SourceError(
        f"the layer {layer_name(value)!r} is {value.shape}, in which no axis is to be seen as that "
        "of the channels; give one of maps, of tokens or of a dense layer with concept_layer="
    )


def conditional(metadata: Metadata, concepts: Concepts | None) -> Metadata:
    """The metadata of a file that takes them, if it does."""
    if concepts is None:
        return metadata
    one = ObjectiveInput(
        f"how much each channel of {layer_name(concepts.value)} counts, or the indices of those "
        "that do",
        (concepts.count,),
        default=1.0,
        kind=CHANNELS,
    )
    explained = metadata.objective
    explained = replace(explained, inputs={**explained.inputs, CONCEPTS: one})
    return replace(metadata, objective=explained)
