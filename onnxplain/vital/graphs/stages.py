"""Which layers are matched in a network that has no recipe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

import onnx_ir as ir

from onnxplain.errors import SourceError
from onnxplain.export.autodiff import dependents, depends, operator_name
from onnxplain.export.count import multiply_adds
from onnxplain.export.layers import cut_values
from onnxplain.export.operators import row_of
from onnxplain.export.tensors import dims, rank
from onnxplain.vital.graphs.matching import channel_axis, extent
from onnxplain.vital.recipes import STAGES


def pick_layers(graph: ir.Graph) -> list[ir.Value]:
    """The stem and four stages of a canonical graph: the last layer of each resolution.

    A stage ends where the number of positions has halved or doubled since it began. Where the
    resolution hardly changes, as in a transformer, the five layers are evenly spaced in
    multiply-adds.

    Raises:
        SourceError: too few layers that the whole network passes through.
    """
    image = graph.inputs[0]
    cuts = cut_values(graph, _has_positions)
    layers = [layer for layer in cuts if not _is_flattened(layer, image)]
    stages = _last_of_resolutions(layers, image)[-STAGES:]
    if len(stages) < 3:
        stages = _evenly(graph, layers)
    if len(stages) < 3:
        names = ", ".join(f"{layer.name} {layer.shape}" for layer in layers) or "none"
        raise SourceError(
            f"the stages of this network are unclear (found: {names}); give its layers, from the "
            "image on, with layers="
        )
    return stages


def _has_positions(value: ir.Value) -> bool:
    sizes = [] if value.shape is None else dims(value)[1:]
    return len(sizes) in (2, 3) and all(isinstance(n, int) and n > 1 for n in sizes)


def _is_flattened(value: ir.Value, image: ir.Value) -> bool:
    """Whether it is [N, C, P], between [N, C, h, w] and tokens [N, P, C] or a mean."""
    node = value.producer()
    if rank(value) != 3 or node is None or row_of(operator_name(node)).mixes_axes:
        return False
    inputs = [x for x in node.inputs if x is not None and x.shape is not None]
    if node.op_type != "Reshape":
        alike = (x for x in inputs if dims(x) == dims(value))
        return any(_is_flattened(x, image) for x in islice(alike, 1))
    maps = inputs[0]
    if rank(maps) != 4 or channel_axis(maps, image) != -3:
        return False
    channels, height, width = dims(maps)[1:]
    return dims(value)[1:] == [channels, height * width]


def _last_of_resolutions(layers: Sequence[ir.Value], image: ir.Value) -> list[ir.Value]:
    stages: list[ir.Value] = []
    begun_with = 0
    for layer in layers:
        positions = extent(layer, image)[1]
        if stages and begun_with / 2 < positions < 2 * begun_with:
            stages[-1] = layer
        else:
            stages.append(layer)
            begun_with = positions
    return stages


def _evenly(graph: ir.Graph, layers: Sequence[ir.Value]) -> list[ir.Value]:
    """Those of `layers` by which 1/5, 2/5, … of the work is done."""
    total = multiply_adds(graph)

    def done_by(layer: ir.Value) -> float:
        after = dependents(graph, [layer])
        return 1 - multiply_adds(n for n in graph if depends(n, after)) / total

    def nearest_to(share: float) -> Callable[[ir.Value], float]:
        return lambda layer: abs(done[layer] - share)

    done = {layer: done_by(layer) for layer in layers}
    chosen = [min(layers, key=nearest_to(i / STAGES)) for i in range(1, STAGES + 1)]
    return [layer for layer in layers if layer in chosen]
