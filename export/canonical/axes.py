"""Which axis of a value is the batch: shown by what follows the image's batch, never assumed."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
from onnx_ir.passes import common

from onnxplain.export.autodiff import dependents
from onnxplain.export.tensors import dims

_TRIED = (3, 5)


def batch_axes(model: ir.Model, values: Sequence[ir.Value]) -> list[int | None]:
    """The batch axis of each value of a graph whose first input is the image; None where nothing
    shows it.

    An axis of the image's own symbol is the batch. Where there is none, the image is declared as a
    batch of three and then of five, and the axis that inference finds to be three and then five is.
    Where a fixed batch says nothing to that, it is the only axis of the batch's size.
    """
    image = model.graph.inputs[0]
    found = [_named(value, dims(image)[0]) for value in values]
    if None in found:
        tried = _tried(model, values)
        found = [axis if shown is None else shown for axis, shown in zip(found, tried, strict=True)]
    if isinstance(batch := dims(image)[0], int):
        found = [
            _only(value, batch) if axis is None else axis
            for value, axis in zip(values, found, strict=True)
        ]
    return found


def _named(value: ir.Value, batch: int | ir.SymbolicDim) -> int | None:
    return None if isinstance(batch, int) else _only(value, batch)


def _only(value: ir.Value, size: int | ir.SymbolicDim) -> int | None:
    if value.shape is None:
        return None
    axes = [axis for axis, n in enumerate(value.shape) if n == size]
    return axes[0] if len(axes) == 1 else None


def _tried(model: ir.Model, values: Sequence[ir.Value]) -> list[int | None]:
    graph = model.graph
    image = graph.inputs[0]
    active = [v for v in dependents(graph, [image]) if v is not None]
    kept = {value: value.shape for value in active}
    shapes: list[list[ir.Shape | None]] = []
    try:
        for batch in _TRIED:
            for value in active:
                value.shape = None
            image.shape = ir.Shape([batch, *list(kept[image] or ())[1:]])
            common.ShapeInferencePass()(model)
            shapes.append([value.shape for value in values])
    except Exception:  # the network contradicts such a batch
        return [None] * len(values)
    finally:
        for value, shape in kept.items():
            value.shape = shape
    return [_following(*pair) for pair in zip(*shapes, strict=True)]


def _following(*shapes: ir.Shape | None) -> int | None:
    """The axis that is as long as the batch in each of the trials."""
    if any(shape is None for shape in shapes):
        return None
    sizes = zip(*(list(shape or ()) for shape in shapes), strict=True)
    axes = [axis for axis, found in enumerate(sizes) if found == _TRIED]
    return axes[0] if len(axes) == 1 else None
