"""The pullback as it is put out: of the photograph's size, and in few bits."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.building import sort
from onnxplain.contract.explain import DIRECTION, PRODUCT, PULLBACK, RELEVANCE, Metadata
from onnxplain.contract.pixels import (
    INT8,
    PHOTOGRAPH,
    PHOTOGRAPH_SIDES,
    PULLBACK_SCALE,
    PULLBACK_SEEN,
    PULLBACK_WHOLE,
)
from onnxplain.contract.precision import CAMERA
from onnxplain.export.camera.camera import Camera
from onnxplain.export.heads import arrived
from onnxplain.export.provenance import named_after
from onnxplain.export.tensors import dims, in_float32, rank

_WAYS_BACK = {DIRECTION: Camera.gradient, RELEVANCE: Camera.part, PRODUCT: Camera.part}
"""Of kinds of pullback; others are laid on the photograph as they are."""


def put_out(op: OpBuilder, metadata: Metadata, camera: Camera | None) -> None:
    """Give a graph its pullback in the geometry and the precision that the metadata say.

    Args:
        camera: what stands before the network; None where its input is the image.
    """
    pixels, graph = metadata.pixels, op.builder.graph
    if camera is not None and pixels.geometry == PHOTOGRAPH:
        with named_after(op, CAMERA):
            placed = _on_photograph(op, camera, _pullback(graph), metadata)
        if placed is not _pullback(graph):
            _replace(graph, placed, PULLBACK_SEEN)
    if pixels.quantised:
        pullback = _pullback(graph)
        scale, small = _quantised(op, pullback, pixels.quantised)
        scale.name, scale.shape = PULLBACK_SCALE, ir.Shape(dims(pullback)[:-3])
        small.shape = pullback.shape
        _replace(graph, small, PULLBACK_WHOLE)
        graph.outputs.append(scale)
    sort(graph)


def _on_photograph(
    op: OpBuilder, camera: Camera, pullback: ir.Value, metadata: Metadata
) -> ir.Value:
    width, is_last = rank(pullback), metadata.preprocessing.layout == "NHWC"
    before = [*range(width - 3)]
    g = in_float32(op, pullback)
    if is_last:
        g = op.Transpose(g, perm=[*before, width - 1, width - 3, width - 2])
    g = _WAYS_BACK.get(metadata.kind, Camera.place)(camera, g)
    if is_last:
        g = op.Transpose(g, perm=[*before, width - 2, width - 1, width - 3])
    height_width = [*map(ir.SymbolicDim, PHOTOGRAPH_SIDES)]
    shape = dims(pullback)
    first = width - 3 if is_last else width - 2
    g.shape = ir.Shape([*shape[:first], *height_width, *shape[first + 2 :]])
    return g


def _quantised(op: OpBuilder, pullback: ir.Value, to: str) -> tuple[ir.Value, ir.Value]:
    """The scale of each pullback, and the pullback divided by it: within ±127 of int8, ±1 of
    float16.

    One of zeros has the scale 1.
    """
    pullback, behind = arrived(op, pullback), [-3, -2, -1]
    with named_after(op, CAMERA):
        pullback = in_float32(op, pullback)
        most = op.ReduceMax(op.Abs(pullback), behind, keepdims=1)
        top = 127.0 if to == INT8 else 1.0
        scale = op.Div(op.Where(op.Equal(most, 0.0), top, most), top)
        within = op.Div(pullback, scale)
        if to == INT8:  # TensorRT has no other way to int8
            small = op.QuantizeLinear(within, *(_one(op, n) for n in (np.float32(1), np.int8(0))))
        else:
            small = op.Cast(within, to=ir.DataType.FLOAT16)
        return op.Squeeze(scale, behind), small


def _one(op: OpBuilder, number: np.generic) -> ir.Value:
    """A constant scalar of the number's own dtype."""
    name = f"pullback.{number.dtype}"
    return op.builder.initializer(ir.tensor(np.array(number), name=name), name, qualify=False)


def _pullback(graph: ir.Graph) -> ir.Value:
    return next(value for value in graph.outputs if value.name == PULLBACK)


def _replace(graph: ir.Graph, by: ir.Value, name: str) -> None:
    """Put out another pullback; what has been one is called by the name."""
    before = _pullback(graph)
    before.name = name
    by.name = PULLBACK
    graph.outputs[graph.outputs.index(before)] = by
