"""What a detector's outputs are: which are boxes and which scores, in what form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np

from onnxplain.export.objectives.anchors import at_rest, form_of
from onnxplain.export.objectives.decoding import strides_of, width_and_height
from onnxplain.export.objectives.objective import (
    NO_IMAGE,
    Fit,
    Network,
    Output,
    Setting,
    Settings,
)
from onnxplain.export.objectives.reading import counted
from onnxplain.export.objectives.structure import (
    End,
    Part,
    activation_of,
    ends,
    joined,
    parts,
)
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
        "centre and size; corners, x or y first; or grid: as YOLOX leaves them, the centre's "
        "distance from the box's place in strides, and the logarithm of the size in strides",
        ("cxcywh", "xyxy", "yxyx", "grid"),
    ),
    Setting("units", "pixels of the input, or parts of its sides", ("pixels", "relative")),
    Setting("objectness", "whether a score of its own says that something is there", ("yes", "no")),
    Setting("background", "which of the classes is nothing", ("none", "first", "last")),
    Setting("scores", "what the scores are", ("probabilities", "sigmoid", "softmax")),
    Setting("classes", "how many there are"),
)

_PROBABILITIES = ("sigmoid", "softmax", "product")


@dataclass(frozen=True)
class _Shown:
    """What the graph shows of a detector, as settings; and the names of those it does not."""

    said: dict[str, str] = field(default_factory=dict)
    unshown: tuple[str, ...] = ()

    def taken(self, settings: Settings, *needed: str) -> _Shown:
        """With the settings that were chosen; whatever else is needed and unknown is not shown."""
        said = {**self.said, **settings}
        return _Shown(said, tuple(name for name in needed if name not in said))


def fits(network: Network, settings: Settings) -> Fit | str:
    if not network.has_image:
        return NO_IMAGE
    layout = settings.get("layout")
    tried: list[Fit | str] = []
    if layout in (None, "separate"):
        tried += [_of_pair(*pair, network, settings) for pair in _separate(network.outputs)]
    if layout != "separate":
        flat = [output for output in network.outputs if len(output.sizes) == 2]
        tried += [_of_one(output, network, settings) for output in flat]
    fitting = [fit for fit in tried if isinstance(fit, Fit)]
    of_none = (
        "no output is [N, 4+C, A], [N, A, 5+C] or [N, A, 6], and no two are [N, A, 4], [N, A, C]"
    )
    return next((fit for fit in fitting if fit.sure), next(iter([*fitting, *tried]), of_none))


def _separate(outputs: Sequence[Output]) -> list[tuple[Output, Output]]:
    """Boxes [N, A, 4] and scores [N, A, C]; those with "box" in their names first."""
    flat = [output for output in outputs if len(output.sizes) == 2]
    boxes = [output for output in flat if output.sizes[1] == 4]
    return [
        (of_box, scores)
        for of_box in sorted(boxes, key=lambda output: "box" not in output.name.lower())
        for scores in flat
        if scores is not of_box and scores.sizes[0] == of_box.sizes[0]
    ]


def _of_pair(boxes: Output, scores: Output, network: Network, settings: Settings) -> Fit:
    edges, classes = _axis(boxes, 1), _axis(scores, 1)
    entries = ends(boxes.value, edges)
    said = {"layout": "separate", "objectness": "no"}
    said |= form_of(at_rest(entries, network.image), *width_and_height(network.image))
    activation = activation_of(scores.value, classes)
    if _are_relative(entries):
        said["units"] = "relative"
        if _without_anchors(boxes, network) and activation in ("", "softmax"):
            said |= {"boxes": "cxcywh", "scores": "softmax", "background": "last"}  # as DETR's
    if activation:
        said["scores"] = "probabilities"
    of_each = {**said, **settings}.get("scores")
    if activation in ("sigmoid", "product") or of_each == "sigmoid":
        said["background"] = "none"
    shown = _Shown(said).taken(settings, "boxes", "units", "scores", "background")
    count = scores.sizes[1] - (shown.said.get("background", "none") != "none")
    axes = {
        boxes.name: _with_batch(boxes, ["box", "edge"]),
        scores.name: _with_batch(scores, ["box", "class"]),
    }
    why = f"{boxes.name} are {boxes.sizes[0]} boxes, {scores.name} their scores of {counted(count)}"
    return _fit({"boxes": boxes, "scores": scores}, axes, why, count, shown)


def _are_relative(edges: Sequence[End]) -> bool:
    """A Sigmoid ends them."""
    return {end.activation for end in edges} == {"sigmoid"}


def _without_anchors(boxes: Output, network: Network) -> bool:
    """Whether all boxes are equal at rest: a linear layer alone tells them apart."""
    rest = at_rest(ends(boxes.value, _axis(boxes, 1)), network.image)
    return rest is not None and float(np.ptp(rest, axis=0).max()) < 1e-6


def _of_one(output: Output, network: Network, settings: Settings) -> Fit | str:
    """One output with all."""
    is_last = _numbers_are_last(output)
    anchors, numbers = output.sizes if is_last else reversed(output.sizes)
    shape = f"{output.name} is {anchors} boxes of {numbers} numbers each"
    if numbers < 5:
        return f"{shape}, too few for box and scores"
    of_box = parts(output.value, _axis(output, int(is_last)))
    final = numbers == 6 and is_last and of_box[-1].activation == "kind"
    if settings.get("layout", "final" if final else "yolo") == "final":
        if numbers != 6 or not is_last:
            return f"{output.name} is not [N, A, 6]"
        shown = _final(of_box, network, settings)
        most = classes = int(shown.said.get("classes", 1))
    else:
        shown = _yolo(of_box, anchors, network, settings)
        most = numbers - 4 - (shown.said.get("objectness") == "yes")
        classes = int(shown.said.get("classes", most))
    if not 1 <= classes <= most:
        return f"{shape}, which have no scores of {counted(classes)}"
    if shown.said.get("boxes") == "grid" and not strides_of(anchors, network.image):
        return f"{shape}, which are no grids on this image: choose other boxes than grid"
    axes = ["box", "number"] if is_last else ["number", "box"]
    every = {output.name: _with_batch(output, axes)}
    return _fit({"all": output}, every, f"{shape}, {counted(classes)}", classes, shown)


def _numbers_are_last(output: Output) -> bool:
    """Whether the last axis is a box's numbers: the only one that begins with four of their own;
    or the shorter one, as most networks have more boxes than classes."""
    first, last = output.sizes
    four_apart = [
        4 in accumulate(part.size for part in parts(output.value, _axis(output, axis)))
        for axis in (0, 1)
    ]
    return four_apart[1] if four_apart[0] != four_apart[1] else last < first


def _final(of_box: Sequence[Part], network: Network, settings: Settings) -> _Shown:
    """A box, its score and its class."""
    entries = [end for part in of_box for end in part.ends]
    said = {"layout": "final", "objectness": "no", "scores": "probabilities", "background": "none"}
    if network.labels:
        said["classes"] = str(len(network.labels))
    said |= form_of(at_rest(entries[:4], network.image), *width_and_height(network.image))
    return _Shown(said).taken(settings, "boxes", "units", "classes")


def _yolo(of_box: Sequence[Part], anchors: int, network: Network, settings: Settings) -> _Shown:
    """Four numbers of a box; perhaps the objectness; the classes; and others, as of masks."""
    entries = [end for part in of_box for end in part.ends]
    said = {"layout": "yolo", "background": "none"}
    rest = at_rest(entries[:4], network.image)
    said |= form_of(rest, *width_and_height(network.image))
    if _are_relative(entries[:4]):
        said["units"] = "relative"
    scores = _scores(joined(entries[4:]))
    if scores.objectness:
        said["objectness"] = scores.objectness
    if scores.activation in _PROBABILITIES:
        said["scores"] = "probabilities"
        masks = [output.sizes[0] for output in network.outputs if len(output.sizes) == 3]
        if scores.objectness and scores.others in (0, *masks):
            said["classes"] = str(scores.classes)
    raw = rest is not None and not rest.any() and not any(end.activation for end in entries[:4])
    if raw and scores.objectness == "yes" and strides_of(anchors, network.image):
        said |= {"boxes": "grid", "units": "pixels"}
    needed = ("boxes", "units", "objectness", "scores", "classes")
    return _Shown(said).taken(settings, *needed)


@dataclass(frozen=True)
class _Scores:
    """What comes after a box's four numbers; an objectness of "" is not shown to be or not."""

    objectness: str
    activation: str
    classes: int
    others: int


def _scores(of_box: Sequence[Part]) -> _Scores:
    first, *later = of_box
    others = sum(part.size for part in later)
    alone = first.activation == "sigmoid" or _is_constant(first)
    if first.size == 1 and alone and later and later[0].activation in _PROBABILITIES:
        return _Scores("yes", later[0].activation, later[0].size, others - later[0].size)
    objectness = ""
    if first.activation == "product":
        objectness = "no"
    elif first.activation == "sigmoid":
        given, *more = first.before()
        if first.first == 4 or (given.size == 1 and more):  # YOLOv5's Sigmoid is of box and all
            objectness = "yes"
        elif given.first == 0 and not more:
            objectness = "no"
    return _Scores(objectness, first.activation, first.size - (objectness == "yes"), others)


def _is_constant(part: Part) -> bool:
    return not any(varies(place.value) for end in part.ends for place in end.places)


def _fit(
    outputs: Mapping[str, Output],
    axes: Mapping[str, Sequence[str]],
    why: str,
    classes: int,
    shown: _Shown,
) -> Fit:
    return Fit(
        outputs,
        axes,
        why,
        sure=not shown.unshown,
        classes=classes,
        settings=shown.said,
        unshown=shown.unshown,
    )


def _axis(output: Output, behind: int) -> int:
    """An axis of the output's, counted behind the batch."""
    return behind + (behind >= output.batch)


def _with_batch(output: Output, axes: list[str]) -> list[str]:
    return [*axes[: output.batch], "batch", *axes[output.batch :]]
