"""Which axis of a value is the batch: shown by what follows the image's batch, never assumed."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnxplain.export.shapes import infer_shapes
from onnxplain.export.subgraphs import bodies, operands
from onnxplain.export.tensors import dims

_TRIED = (3, 5)


NONE = -1
"""The batch axis of a value that has none."""


def batch_axes(model: ir.Model, values: Sequence[ir.Value]) -> list[int | None]:
    """The batch axis of each value of a graph whose first input is the image; `NONE` where it is
    shown that no axis is, None where nothing shows it.

    An axis of the image's own symbol is the batch. Where there is none, the image is declared as a
    batch of three and then of five, as is every input whose first axis is of the same size, and the
    axis that inference finds to be three and then five is. Where a fixed batch says nothing to
    that, it is the only axis of the batch's size.
    """
    image = model.graph.inputs[0]
    batch = dims(image)[0]
    found = [None if isinstance(batch, int) else _only(value, batch) for value in values]
    if None in found:
        tried = _tried(model, values)
        found = [axis if shown is None else shown for axis, shown in zip(found, tried, strict=True)]
    if isinstance(batch, int):
        found = [
            _of_size(value, batch) if axis in (None, NONE) else axis
            for value, axis in zip(values, found, strict=True)
        ]
    return found


def _of_size(value: ir.Value, batch: int) -> int | None:
    sizes = [] if value.shape is None else list(value.shape)
    known = bool(sizes) and all(isinstance(n, int) for n in sizes)
    return NONE if known and batch not in sizes else _only(value, batch)


def _only(value: ir.Value, size: int | ir.SymbolicDim) -> int | None:
    if value.shape is None:
        return None
    axes = [axis for axis, n in enumerate(value.shape) if n == size]
    return axes[0] if len(axes) == 1 else None


def _tried(model: ir.Model, values: Sequence[ir.Value]) -> list[int | None]:
    graph = model.graph
    batch = dims(graph.inputs[0])[0]
    inputs = [x for x in graph.inputs if x.shape is not None and list(x.shape)[:1] == [batch]]
    kept = {value: value.shape for value in _reached(graph, inputs)}
    shapes: list[list[ir.Shape | None]] = []
    try:
        for size in _TRIED:
            for value in kept:
                value.shape = None
            for x in inputs:
                x.shape = ir.Shape([size, *list(kept[x] or ())[1:]])
            infer_shapes(model)  # finds nothing where such a batch is contradicted
            shapes.append([value.shape for value in values])
    finally:
        for value, shape in kept.items():
            value.shape = shape
    return [_following(*pair) for pair in zip(*shapes, strict=True)]


def _reached(graph: ir.Graph, inputs: Sequence[ir.Value]) -> list[ir.Value]:
    """The inputs and all values whose elements or shape follow from them, those in bodies too."""
    reached = dict.fromkeys(inputs, True)
    for node in graph:
        if any(x in reached for x in operands(node)):
            reached |= dict.fromkeys(node.outputs, True)
            for body in bodies(node):
                within = [*body.inputs, *(y for inner in body.all_nodes() for y in inner.outputs)]
                reached |= dict.fromkeys(within, True)
    return list(reached)


def _following(*shapes: ir.Shape | None) -> int | None:
    """The axis that is as long as the batch in each of the trials."""
    if any(shape is None for shape in shapes):
        return None
    sizes = list(zip(*(list(shape or ()) for shape in shapes), strict=True))
    axes = [axis for axis, found in enumerate(sizes) if found == _TRIED]
    if len(axes) == 1:
        return axes[0]
    known = bool(sizes) and all(isinstance(n, int) for found in sizes for n in found)
    # What is 1 in both may be one image's alone, in a file that only declares an open batch.
    return NONE if known and not axes and sizes[0] != (1, 1) else None
