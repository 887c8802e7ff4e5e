"""A detector's boxes and scores in the graph, in one form whatever theirs is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.canonical.ends import image_axes, image_size
from onnxplain.export.objectives.objective import Fit, Output, hold
from onnxplain.export.tensors import (
    axis_of,
    constant,
    dims,
    integers,
    is_known,
    on_device,
    rank,
    scalar_size_at,
    size_of,
)

_STRIDES = ((8, 16, 32), (8, 16, 32, 64), (16, 32))


def read(op: OpBuilder, fit: Fit, image: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Boxes [N, A, 4] as left, top, right and bottom, in parts of the image; the scores [N, A, C]
    as the network has them; and as probabilities, of which boxes and probabilities are held."""
    said = fit.settings
    if said["layout"] == "separate":
        boxes, scores = (fit.outputs[part].with_batch_first(op) for part in ("boxes", "scores"))
    else:
        boxes, scores = _parts(op, fit)
    likely = hold(op, scores)
    if said["scores"] != "probabilities":
        likely = op.Sigmoid(likely) if said["scores"] == "sigmoid" else op.Softmax(likely, axis=-1)
    if said["background"] != "none":
        start = int(said["background"] == "first")
        scores, likely = (
            op.Slice(x, [start], [start + fit.classes], [2]) for x in (scores, likely)
        )
    boxes = hold(op, boxes)
    if said["boxes"] == "grid":
        boxes = _decoded(op, boxes, fit.outputs["all"], image)
    return _as_parts(op, boxes, said, image), scores, likely


def _parts(op: OpBuilder, fit: Fit) -> tuple[ir.Value, ir.Value]:
    output = fit.outputs["all"]
    axis = fit.axes[output.name].index("number")
    is_last = axis > fit.axes[output.name].index("box")

    def numbers(start: int, stop: int) -> ir.Value:
        part = output.with_batch_first(op, _taken(op, output.value, axis, start, stop))
        return part if is_last else op.Transpose(part, perm=[0, 2, 1])

    boxes = numbers(0, 4)
    if fit.settings["layout"] == "final":
        kind = op.Round(numbers(5, 6))
        places = op.CastLike(integers(op, np.arange(fit.classes)), kind)
        own = hold(op, op.CastLike(op.Equal(kind, places), kind))
        return boxes, op.Mul(numbers(4, 5), own)
    start = 4 + (fit.settings["objectness"] == "yes")
    scores = numbers(start, start + fit.classes)
    if start == 4:
        return boxes, scores
    objectness = hold(op, numbers(4, 5), relevance_only=True)  # a gate
    return boxes, op.Mul(scores, objectness)


def _taken(op: OpBuilder, value: ir.Value, axis: int, start: int, stop: int) -> ir.Value:
    """Entries along an axis, of that operand of a Concat which has them all: the sweep then visits
    no other, as that of boxes, which are held."""
    node = value.producer()
    operands = [] if node is None else [x for x in node.inputs if x is not None]
    if node is not None and node.op_type == "Transpose":
        perm = node.attributes.get_ints("perm", list(reversed(range(rank(value)))))
        return op.Transpose(_taken(op, operands[0], perm[axis], start, stop), perm=list(perm))
    if node is not None and node.op_type == "Concat" and axis_of(node, value) + rank(value) == axis:
        first = 0
        for x in operands:
            if first <= start and stop <= first + size_of(x, axis):
                return _taken(op, x, axis, start - first, stop - first)
            first += size_of(x, axis)
    return op.Slice(value, [start], [stop], [axis])


def _as_parts(op: OpBuilder, boxes: ir.Value, said: Mapping[str, str], image: ir.Value) -> ir.Value:
    if said["boxes"] == "yxyx":
        boxes = op.Gather(boxes, integers(op, np.array([1, 0, 3, 2])), axis=2)
    if said["units"] == "pixels":
        boxes = op.Div(boxes, sides(op, image, boxes))
    if said["boxes"] in ("xyxy", "yxyx"):
        return boxes
    centre, size = op.Slice(boxes, [0], [2], [2]), op.Slice(boxes, [2], [4], [2])
    half = op.Mul(size, 0.5)
    return op.Concat(op.Sub(centre, half), op.Add(centre, half), axis=2)


def _decoded(op: OpBuilder, boxes: ir.Value, output: Output, image: ir.Value) -> ir.Value:
    """Centre and size in pixels, of boxes that lie stride by stride and row by row."""
    strides = next(filter(None, (strides_of(count, image) for count in output.sizes)))
    parts = _open_grids if output.is_open else _grids
    grid, unit = parts(op, strides, image, boxes)
    centre, size = op.Slice(boxes, [0], [2], [2]), op.Slice(boxes, [2], [4], [2])
    return op.Concat(op.Mul(op.Add(centre, grid), unit), op.Mul(op.Exp(size), unit), axis=2)


def _grids(
    op: OpBuilder, strides: Sequence[int], image: ir.Value, like: ir.Value
) -> tuple[ir.Value, ir.Value]:
    """Each place's column and row, [A, 2], and its stride, [A, 1]."""
    width, height = width_and_height(image)
    places, units = [], []
    for stride in strides:
        rows, columns = np.mgrid[: -(-height // stride), : -(-width // stride)]
        places.append(np.stack([columns.ravel(), rows.ravel()], 1))
        units.append(np.full([rows.size, 1], stride))
    grid, unit = (constant(op, np.concatenate(parts), like) for parts in (places, units))
    return grid, unit


def _open_grids(
    op: OpBuilder, strides: Sequence[int], image: ir.Value, like: ir.Value
) -> tuple[ir.Value, ir.Value]:
    """The same of an image of open size."""
    places, units = [], []
    for stride in strides:
        height, width = (
            op.Div(op.Add(op.Shape(image, start=axis, end=axis + 1), stride - 1), stride)
            for axis in image_axes(image)[:2]
        )
        sides = op.Concat(height, width, axis=0)
        rows, columns = (op.Range(0, op.Squeeze(side, [0]), 1) for side in (height, width))
        each = op.Expand(columns, sides), op.Expand(op.Unsqueeze(rows, [1]), sides)
        flat = op.Concat(*(op.Reshape(part, [-1, 1]) for part in each), axis=1)
        places.append(op.CastLike(flat, like))
        unit = constant(op, np.full([1, 1], stride), like)
        units.append(op.Expand(unit, op.Concat(op.Mul(height, width), [1], axis=0)))
    return op.Concat(*places, axis=0), op.Concat(*units, axis=0)


def strides_of(boxes: int, image: ir.Value) -> Sequence[int]:
    """Those of the grids that have so many places; () if there are none."""
    width, height = width_and_height(image)
    for strides in _STRIDES:
        if sum(-(-height // s) * -(-width // s) for s in strides) == boxes:
            return strides
    return ()


def width_and_height(image: ir.Value) -> tuple[int, int]:
    """Width and height."""
    height, width, _ = image_size(image)
    return width, height


def sides(op: OpBuilder, image: ir.Value, like: ir.Value) -> ir.Value:
    """Width, height, width and height of the image, of the dtype of `like`."""
    axes = list(image_axes(image)[1::-1]) * 2
    sizes = [dims(image)[axis] for axis in axes]
    if all(map(is_known, sizes)):
        return constant(op, np.array(sizes, np.float64), like)
    width, height = (on_device(op, scalar_size_at(op, image, axis)) for axis in axes[:2])
    return op.CastLike(op.Concat(width, height, width, height, axis=0), like)
