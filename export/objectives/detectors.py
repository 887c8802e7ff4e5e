"""What a detector's outputs are: which are boxes and which scores, in what form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.errors import SourceError
from onnxplain.export.autodiff import operator_name
from onnxplain.export.canonical.ends import image_size
from onnxplain.export.objectives.objective import Fit, Network, Output, Setting, Settings, hold
from onnxplain.export.objectives.reading import ending
from onnxplain.export.operators import Kind, row_of
from onnxplain.export.tensors import constant, integers, size_of
from onnxplain.export.values import varies

SETTINGS = (
    Setting(
        "layout",
        "yolo: one output [N, 4+C, A] or [N, A, 5+C]; final: [N, A, 6] of box, score and class, "
        "after suppression; separate: [N, A, 4] and [N, A, C]",
        ("yolo", "final", "separate"),
    ),
    Setting(
        "boxes",
        "centre and size, or corners; grid: as YOLOX leaves them, the centre's distance from the "
        "box's place in strides, and the logarithm of the size in strides",
        ("cxcywh", "xyxy", "grid"),
    ),
    Setting("units", "pixels of the input, or parts of its sides", ("pixels", "relative")),
    Setting("objectness", "whether a score of its own says that something is there", ("yes", "no")),
    Setting("background", "which of the classes is nothing", ("none", "first", "last")),
    Setting("scores", "what the scores are", ("probabilities", "sigmoid", "softmax")),
    Setting("classes", "how many there are, where the outputs do not show it"),
)

_STRIDES = ((8, 16, 32), (8, 16, 32, 64), (16, 32))
_FINAL = (100, 300)
"""How many detections exports with suppression have."""


def fits(network: Network, settings: Settings) -> Fit | str:
    layout = settings.get("layout")
    if layout in (None, "separate") and (pair := _separate(network.outputs)) is not None:
        return _of_pair(*pair, settings)
    flat = [output for output in network.outputs if len(output.sizes) == 2]
    for output in flat:
        if layout != "separate" and (found := _of_one(output, network, settings)) is not None:
            return found
    return "no output is [N, 4+C, A], [N, A, 5+C] or [N, A, 6], and no two are [N, A, 4], [N, A, C]"


def _separate(outputs: Sequence[Output]) -> tuple[Output, Output] | None:
    """Boxes [N, A, 4] and scores [N, A, C]; of several, those with "box" in their names first."""
    flat = [output for output in outputs if len(output.sizes) == 2]
    boxes = [output for output in flat if output.sizes[1] == 4]
    for of_box in sorted(boxes, key=lambda output: "box" not in output.name.lower()):
        for scores in flat:
            if scores is not of_box and scores.sizes[0] == of_box.sizes[0]:
                return of_box, scores
    return None


def _of_pair(boxes: Output, scores: Output, settings: Settings) -> Fit:
    """As DETR has them if the boxes end in a Sigmoid: parts of the image, and nothing last."""
    is_detr = ending(boxes.value, -1).activation == "sigmoid"
    activation = ending(scores.value, -1).activation
    found = {
        "layout": "separate",
        "boxes": "cxcywh" if is_detr else "xyxy",
        "units": "relative" if is_detr else "pixels",
        "scores": "probabilities" if activation else "softmax" if is_detr else "sigmoid",
        **settings,
    }
    if activation == "softmax" or found["scores"] == "softmax":
        found = {"background": "last" if is_detr else "first", **found}
    found = {"background": "none", "objectness": "no", **found}
    classes = scores.sizes[1] - (found["background"] != "none")
    axes = {
        boxes.name: _with_batch(boxes, ["box", "edge"]),
        scores.name: _with_batch(scores, ["box", "class"]),
    }
    why = f"{boxes.name} are {boxes.sizes[0]} boxes, {scores.name} their {classes} classes' scores"
    return Fit({"boxes": boxes, "scores": scores}, axes, why, True, classes, settings=found)


def _of_one(output: Output, network: Network, settings: Settings) -> Fit | None:
    """One output with all. Boxes are more than the numbers of each."""
    first, last = output.sizes
    anchors, numbers, is_last = (first, last, True) if first > last else (last, first, False)
    height, width, _ = image_size(network.image)
    grids = [
        sum(-(-height // s) * -(-width // s) for s in strides) * times
        for strides in _STRIDES
        for times in (1, 3)
    ]
    final = is_last and numbers == 6 and (anchors in _FINAL)
    layout = settings.get("layout", "final" if final else "yolo")
    if layout == "final":
        if not is_last or numbers != 6:
            return None
        found = {"layout": layout, "boxes": "xyxy", "objectness": "no", "classes": "80"}
        classes = int({**found, **settings}["classes"])
    else:
        masks = [o.sizes[0] for o in network.outputs if len(o.sizes) == 3 and o.sizes[0] == 32]
        found = {"layout": layout, "boxes": "cxcywh", "objectness": "yes" if is_last else "no"}
        objectness = {**found, **settings}["objectness"] == "yes"
        if objectness and _is_undecoded(output.value) and anchors in grids[::2]:
            found["boxes"] = "grid"
        classes = numbers - 4 - objectness - sum(masks[:1])
        classes = int(settings.get("classes", classes))
    if classes < 1:
        return None
    found = {"units": "pixels", "scores": "probabilities", "background": "none", **found}
    axes = ["box", "number"] if is_last else ["number", "box"]
    why = f"{output.name} is {anchors} boxes of {numbers} numbers each, {classes} classes"
    sure = anchors in grids or final
    every = {output.name: _with_batch(output, axes)}
    return Fit({"all": output}, every, why, sure, classes, settings={**found, **settings})


def _is_undecoded(value: ir.Value) -> bool:
    """Whether some numbers come out of a convolution as they are, and others out of a Sigmoid."""
    waiting, made = [value], set()
    while waiting:
        node = waiting.pop().producer()
        if node is None:
            return False
        moves = row_of(operator_name(node)).kind is Kind.MOVE
        waiting += [x for x in node.inputs if moves and x is not None and varies(x)]
        made |= set() if moves else {node.op_type}
    return made == {"Conv", "Sigmoid"}


def _with_batch(output: Output, axes: list[str]) -> list[str]:
    return [*axes[: output.batch], "batch", *axes[output.batch :]]


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
    return _as_parts(op, hold(op, boxes), said, image), scores, likely


def _parts(op: OpBuilder, fit: Fit) -> tuple[ir.Value, ir.Value]:
    output = fit.outputs["all"]
    y = output.with_batch_first(op)
    if next(axis for axis in fit.axes[output.name] if axis != "batch") == "number":
        y = op.Transpose(y, perm=[0, 2, 1])
    boxes = op.Slice(y, [0], [4], [2])
    if fit.settings["layout"] == "final":
        kind = op.Round(op.Slice(y, [5], [6], [2]))
        places = op.CastLike(integers(op, np.arange(fit.classes)), y)
        own = hold(op, op.CastLike(op.Equal(kind, places), y))
        return boxes, op.Mul(op.Slice(y, [4], [5], [2]), own)
    start = 4 + (fit.settings["objectness"] == "yes")
    scores = op.Slice(y, [start], [start + fit.classes], [2])
    return boxes, op.Mul(scores, op.Slice(y, [4], [5], [2])) if start > 4 else scores


def _as_parts(op: OpBuilder, boxes: ir.Value, said: Mapping[str, str], image: ir.Value) -> ir.Value:
    if said["boxes"] == "grid":
        boxes = _decoded(op, boxes, image)
    if said["units"] == "pixels":
        boxes = op.Mul(boxes, constant(op, 1 / sides(image), boxes))
    if said["boxes"] == "xyxy":
        return boxes
    centre, size = op.Slice(boxes, [0], [2], [2]), op.Slice(boxes, [2], [4], [2])
    half = op.Mul(size, 0.5)
    return op.Concat(op.Sub(centre, half), op.Add(centre, half), axis=2)


def _decoded(op: OpBuilder, boxes: ir.Value, image: ir.Value) -> ir.Value:
    """Centre and size in pixels, of boxes that lie stride by stride and row by row."""
    height, width, _ = image_size(image)
    places, strides = [], []
    for stride in _strides_of(size_of(boxes, 1), height, width):
        rows, columns = np.mgrid[: -(-height // stride), : -(-width // stride)]
        places.append(np.stack([columns.ravel(), rows.ravel()], 1))
        strides.append(np.full([rows.size, 1], stride))
    grid, unit = (constant(op, np.concatenate(parts), boxes) for parts in (places, strides))
    centre, size = op.Slice(boxes, [0], [2], [2]), op.Slice(boxes, [2], [4], [2])
    return op.Concat(op.Mul(op.Add(centre, grid), unit), op.Mul(op.Exp(size), unit), axis=2)


def _strides_of(boxes: int, height: int, width: int) -> Sequence[int]:
    """Those of the grids that have so many places.

    Raises:
        SourceError: there are none.
    """
    for strides in _STRIDES:
        if sum(-(-height // s) * -(-width // s) for s in strides) == boxes:
            return strides
    raise SourceError(f"{boxes} boxes are no grids of {height} × {width} pixels: leave out boxes")


def sides(image: ir.Value) -> np.ndarray:
    """Width, height, width and height of the image."""
    height, width, _ = image_size(image)
    return np.array([width, height, width, height], np.float64)
