"""Detectors: which object is meant, and its score's gradient."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import box_iou, nms

from onnxplain.errors import InputError, SourceError

from .networks import close, exported, gradient, images, seeded

SIZE, CLASSES = 64, 3
X = images(2, SIZE)
Size = tuple[int, int]


def as_corners(boxes: Tensor) -> Tensor:
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], 2)


STRIDES = (8, 16, 32)


def grid(like: Tensor) -> Tensor:
    """The indices of a map's cells, x first, [2, h, w]."""
    h, w = like.shape[-2:]
    x, y = (torch.arange(n, dtype=like.dtype) for n in (w, h))
    return torch.stack([x.expand(h, w), y[:, None].expand(h, w)])


class Grids(nn.Module):
    """Convolutions on three grids, of several numbers of channels."""

    def __init__(self, *channels: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, 4, 1), nn.ReLU())
        self.heads = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(6, c, 3, s // 4, 1) for c in channels) for s in STRIDES
        )

    def levels(self, x: Tensor) -> list[list[Tensor]]:
        y = self.stem(x)
        return [[head(y) for head in heads] for heads in self.heads]


class Yolo5(Grids):
    """[N, A, 5+C] as YOLOv5's and v7's: one Sigmoid of all, then the boxes are decoded."""

    PER_CELL = 2

    def __init__(self) -> None:
        super().__init__(self.PER_CELL * (5 + CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        levels = []
        for stride, (y,) in zip(STRIDES, self.levels(x), strict=True):
            h, w = y.shape[-2:]
            cells = grid(y).permute(1, 2, 0)
            y = y.view(-1, self.PER_CELL, 5 + CLASSES, h, w).permute(0, 1, 3, 4, 2).sigmoid()
            xy, wh, scores = y.split((2, 2, 1 + CLASSES), 4)
            xy = (xy * 2 + cells - 0.5) * stride
            wh = (wh * 2) ** 2 * torch.tensor([1.5, 3], dtype=x.dtype)[:, None, None, None] * stride
            levels.append(torch.cat((xy, wh, scores), 4).reshape(-1, self.PER_CELL * h * w, 8))
        return torch.cat(levels, 1)


class Yolo8(Grids):
    """[N, 4+C, A] as YOLOv8's to v12's: distances to the sides, each a Softmax's mean; and what
    is put behind the classes."""

    BINS = 4

    def __init__(self, others: int = 0, form: str = "cxcywh") -> None:
        super().__init__(4 * self.BINS, CLASSES, *([others] if others else []))
        self.form = form

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes [N, 4, A] in pixels, logits of classes [N, C, A], others."""
        levels = self.levels(x)
        flat = torch.cat([torch.cat(parts[:2], 1).flatten(2) for parts in levels], 2)
        box, scores = flat.split((4 * self.BINS, CLASSES), 1)
        bins = torch.arange(self.BINS, dtype=x.dtype)[:, None, None]
        box = box.view(-1, 4, self.BINS, box.shape[2]).transpose(1, 2).softmax(1)
        near, far = (box * bins).sum(1).chunk(2, 1)
        cells = torch.cat([(grid(y[0]) + 0.5).flatten(1) for y in levels], 1)
        strides = torch.cat(
            [torch.full_like(y[0][0, 0], s).flatten() for s, y in zip(STRIDES, levels, strict=True)]
        )
        low, high = cells - near, cells + far
        if self.form == "cxcywh":
            low, high = (low + high) / 2, high - low
        boxes = torch.cat([low, high], 1) * strides
        others = [parts[2].flatten(2) for parts in levels if len(parts) > 2]
        return boxes, scores, torch.cat(others, 2) if others else boxes[:, :0]

    def forward(self, x: Tensor) -> Any:
        boxes, scores, others = self.parts(x)
        return torch.cat((boxes, scores.sigmoid(), others.tanh() * 60), 1)


class Yolox(nn.Module):
    """[N, A, 5+C] as YOLOX's: undecoded, or what is made of it."""

    def __init__(self, decoded: bool) -> None:
        super().__init__()
        self.decoded, self.yolo = decoded, Grids(4, 1, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        levels = []
        for stride, (y, *scores) in zip(STRIDES, self.yolo.levels(x), strict=True):
            boxes = [y[:, :2], y[:, 2:4]]
            if self.decoded:
                place = grid(y)
                boxes = [(boxes[0] + place) * stride, boxes[1].exp() * stride]
            likely = [score.sigmoid() for score in scores]
            levels.append(torch.cat([*boxes, *likely], 1).flatten(2))
        return torch.cat(levels, 2).transpose(1, 2)


class Pair(Yolo8):
    """Boxes and scores apart, as SSD's and RetinaNet's heads are once decoded."""

    def __init__(self, kind: str) -> None:
        super().__init__(form="xyxy")
        self.kind = kind
        self.background = nn.Parameter(torch.zeros(1, 1, 1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        boxes, scores, _ = (part.transpose(1, 2) for part in self.parts(x))
        if self.kind == "tensorflow":
            boxes = boxes[..., [1, 0, 3, 2]] / SIZE
        if self.kind == "yolo-nas":
            return {"boxes": boxes, "scores": scores.sigmoid()}
        if self.kind == "ssd":
            nothing = self.background.expand(*scores.shape[:2], 1)
            return {"boxes": boxes, "scores": torch.cat([nothing, scores], 2).softmax(2)}
        return {"boxes": boxes, "scores": scores}


class Detr(nn.Module):
    """DETR's heads; or RT-DETR's, whose boxes start from references."""

    def __init__(self, references: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 12, 3, 8, 1), nn.ReLU(), nn.Flatten(2))
        self.queries = nn.Parameter(torch.randn(30, 64) / 4)
        self.boxes, self.classes = nn.Linear(12, 4), nn.Linear(12, CLASSES + 1 - references)
        self.boxes.bias.data[2:] -= 2
        self.references = torch.randn(30, 4) if references else None

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.queries.to(x.dtype) @ self.stem(x).transpose(1, 2)
        boxes = self.boxes(y)
        if self.references is not None:
            boxes = boxes + self.references.to(x.dtype)
        return {"logits": self.classes(y), "pred_boxes": boxes.sigmoid()}


def read(output: Any, kind: str, size: Size = (SIZE, SIZE)) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes in parts of the image, scores, probabilities."""
    sides = torch.tensor([*size[::-1]] * 2, dtype=torch.float64)
    if isinstance(output, Tensor):
        y = output if output.shape[1] > output.shape[2] else output.transpose(1, 2)
        boxes, objectness = y[..., :4], kind in ("yolov5", "yolox")
        scores = y[..., 4 + objectness : 4 + objectness + CLASSES]
        scores = scores * y[..., 4:5] if objectness else scores
        if kind == "yolox":
            maps = [y.new_empty([-(-n // s) for n in size]) for s in STRIDES]
            cells = [grid(each).flatten(1).T for each in maps]
            strides = [torch.full((len(c), 1), s) for c, s in zip(cells, STRIDES, strict=True)]
            centre = (boxes[..., :2] + torch.cat(cells)) * torch.cat(strides)
            boxes = torch.cat([centre, boxes[..., 2:].exp() * torch.cat(strides)], 2)
        return as_corners(boxes) / sides, scores, scores
    if "pred_boxes" in output:
        boxes, logits = output["pred_boxes"], output["logits"]
        if kind == "rt-detr":
            return as_corners(boxes), logits, logits.sigmoid()
        return as_corners(boxes), logits[..., :-1], logits.softmax(2)[..., :-1]
    boxes, scores = output["boxes"] / sides, output["scores"]
    if kind == "tensorflow":
        boxes = output["boxes"][..., [1, 0, 3, 2]]
    if kind == "ssd":
        return boxes, scores[..., 1:], scores[..., 1:]
    return boxes, scores, scores if kind == "yolo-nas" else scores.sigmoid()


def objective(
    kind: str, target: int, box: list[float] | None = None, size: Size = (SIZE, SIZE)
) -> Any:
    """What the objective should be, by torchvision's own suppression."""

    def of(output: Any) -> Tensor:
        found = []
        for boxes, scores, likely in zip(*read(output, kind, size), strict=True):
            boxes, likely = boxes.detach(), likely.detach()
            by = likely.max(1)[0] if target < 0 else likely[:, target]
            kept = nms(boxes, by, 0.5)
            at = kept[-1 - target if target < 0 else 0]
            b = boxes[at] if box is None else torch.tensor(box) / torch.tensor([*size[::-1]] * 2)
            iou = box_iou(boxes, b[None])[:, 0]
            iou = torch.where(iou > 0.5, iou, 0) if (iou > 0.5).any() else iou
            c = (
                likely[at].argmax()
                if box is None
                else (iou @ likely).argsort(descending=True)[-1 - target]
            )
            c = c if target < 0 else torch.tensor(target)
            w = iou * likely[:, c]
            found.append((w * scores[:, c]).sum() / w.sum())
        return torch.stack(found)

    return of


NETWORKS = {
    "yolov8": Yolo8,
    "yolov5": Yolo5,
    "yolox": lambda: Yolox(decoded=False),
    "pose": lambda: Yolo8(7),
    "yolo-nas": lambda: Pair("yolo-nas"),
    "retinanet": lambda: Pair("retinanet"),
    "tensorflow": lambda: Pair("tensorflow"),
    "ssd": lambda: Pair("ssd"),
    "detr": Detr,
    "rt-detr": lambda: Detr(references=True),
}
NOT_SHOWN = {
    "pose": {"classes": str(CLASSES)},
    "retinanet": {"scores": "sigmoid"},
    "tensorflow": {"scores": "sigmoid"},
    "ssd": {"background": "first"},
    "rt-detr": {"boxes": "cxcywh", "scores": "sigmoid"},
}
"""The settings that their users give."""

BOX = [10.0, 5, 40, 50]


def network(kind: str) -> nn.Module:
    return seeded(NETWORKS[kind])


@pytest.mark.parametrize(
    ("target", "box"),
    [(-1, None), (-2, None), (-3, None), (1, None), (-1, BOX), (-2, BOX), (2, BOX)],
)
@pytest.mark.parametrize(
    "kind",
    [
        *("yolov8", "yolov5", "detr"),
        *(pytest.param(kind, marks=pytest.mark.sweep) for kind in NOT_SHOWN),
        pytest.param("yolo-nas", marks=pytest.mark.sweep),
        pytest.param("yolox", marks=pytest.mark.sweep),
    ],
)
def test_the_score_of_an_object(kind: str, target: int, box: list[float] | None) -> None:
    options = {"settings": NOT_SHOWN[kind]} if kind in NOT_SHOWN else {}
    explainer = exported(network(kind), SIZE, **options)
    assert explainer.metadata.objective.name == "detection"
    given = {} if box is None else {"box": box}
    explanation = explainer(X.numpy(), target, **given)
    score, expected = gradient(network(kind), X, objective(kind, target, box))
    close(explanation.objective, score)
    close(explanation.pullback, expected)
    if box is not None:
        np.testing.assert_allclose(explanation.outputs["explained_box"], [box] * 2, rtol=1e-5)
    assert explanation.targets.shape == (2,)
    assert (explanation.targets >= 0).all()


@pytest.mark.parametrize(("target", "box"), [(-1, None), (-2, BOX)])
@pytest.mark.parametrize("size", [(64, 64), (72, 109)], ids=str)
@pytest.mark.parametrize(
    "kind",
    [
        "yolox",
        *(
            pytest.param(kind, marks=pytest.mark.sweep)
            for kind in ("yolov8", "yolov5", "ssd", "retinanet")
        ),
    ],
)
def test_the_score_of_an_object_in_an_image_of_any_size(
    kind: str, size: Size, target: int, box: list[float] | None
) -> None:
    options = {"settings": NOT_SHOWN[kind]} if kind in NOT_SHOWN else {}
    explainer = exported(network(kind), SIZE, size="any", **options)
    assert explainer.metadata.objective.name == "detection"
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(2))
    given = {} if box is None else {"box": box}
    explanation = explainer(x.numpy(), target, **given)
    score, expected = gradient(network(kind), x, objective(kind, target, box, size))
    close(explanation.objective, score)
    close(explanation.pullback, expected)


def test_undecoded_boxes_are_decoded() -> None:
    found = []
    for decoded in (False, True):
        explainer = exported(seeded(partial(Yolox, decoded)), SIZE)
        boxes = explainer.metadata.objective.settings["boxes"]
        assert boxes == ("cxcywh" if decoded else "grid")
        found.append(explainer(X.numpy(), -2))
    raw, expected = found
    for name in ("explained_box", "explained_class"):
        np.testing.assert_allclose(raw.outputs[name], expected.outputs[name], rtol=1e-4)
    np.testing.assert_allclose(raw.objective, expected.objective, rtol=1e-5)
    close(raw.pullback, expected.pullback)


def test_ranks_are_different_objects() -> None:
    explainer = exported(network("yolov8"), SIZE)
    found = [explainer(X.numpy(), -k).outputs["explained_box"] for k in range(1, 11)]
    for image in range(2):
        boxes = torch.from_numpy(np.stack([boxes[image] for boxes in found]))
        overlap = box_iou(boxes, boxes) - torch.eye(10)
        assert overlap.max() <= 0.5


def test_several_objects_at_once() -> None:
    one = exported(network("yolov5"), SIZE)
    many = exported(network("yolov5"), SIZE, multi_target=True)
    both = many(X.numpy(), [[-1, -3], [2, -2]])
    for column, targets in enumerate(([-1, 2], [-3, -2])):
        alone = one(X.numpy(), targets)
        close(both.pullback[:, column], alone.pullback)
        close(both.outputs["explained_box"][:, column], alone.outputs["explained_box"])
    assert both.rows()[0].boxes.shape == (2, 4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"targets": -11}, r"target -11 is out of range: it is from 0 to 2, or from -1 .* to -10"),
        ({"targets": 3}, "target 3 is out of range"),
        ({"box": [0, 0, 65, 10]}, "'box' is left, top, right, bottom .* within 64 × 64"),
        ({"box": [30, 0, 20, 10]}, "'box' is left, top, right, bottom"),
        ({"box": [1, 2, 3]}, r"'box' .* has the shape \[4\]"),
        ({"box": [1, 2, 3, np.nan]}, "'box' has NaN"),
    ],
)
def test_a_wrong_object_is_a_sentence(given: Any, message: str) -> None:
    explainer = exported(network("yolov8"), SIZE)
    with pytest.raises(InputError, match=message):
        explainer(X.numpy(), **given)


def test_what_is_no_detector() -> None:
    linear = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4))
    with pytest.raises(
        SourceError, match=r"does not fit: no output is .*; its outputs: output \[N, 4\]"
    ):
        exported(seeded(lambda: linear), objective="detection")


def test_its_picture_shows_the_box(tmp_path: Path) -> None:
    explanation = exported(network("yolov8"), SIZE)(X.numpy(), -1, box=BOX)
    drawn = np.asarray(explanation[0].draw("overlay"))
    factor = len(drawn) // SIZE[0] if isinstance(SIZE, tuple) else len(drawn) // SIZE
    assert (drawn[5 * factor, 10 * factor : 40 * factor + 1] == 255).all()
    explanation.save(tmp_path / "grid.png", "grid")


class Masks(Yolo8):
    """With coefficients of masks behind the classes, and the masks."""

    def forward(self, x: Tensor) -> Any:
        boxes, scores, others = self.parts(x)
        masks = self.stem(x)[:, : others.shape[1]]
        return {"output0": torch.cat((boxes, scores.sigmoid(), others), 1), "output1": masks}


def test_coefficients_of_masks_are_no_classes() -> None:
    explainer = exported(seeded(lambda: Masks(5)), SIZE)
    entry = explainer.metadata.objective
    assert (entry.name, entry.classes) == ("detection", CLASSES)
    assert "; classes=3" in explainer.metadata.notes[0]
    explanation = explainer(X.numpy())
    of_boxes = objective("yolov8", -1)
    score, expected = gradient(seeded(lambda: Masks(5)), X, lambda y: of_boxes(y["output0"]))
    close(explanation.objective, score)
    close(explanation.pullback, expected)


class Nms(nn.Module):
    """[N, A, 6] of box, score and class, the best first, as YOLOv10's export has it."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Yolo8(form="xyxy")

    def forward(self, x: Tensor) -> Tensor:
        boxes, scores, _ = (part.transpose(1, 2) for part in self.network.parts(x))
        likely, kind = scores.sigmoid().max(2)
        likely, at = likely.topk(20)
        boxes = boxes.gather(1, at[..., None].expand(-1, -1, 4))
        kind = kind.gather(1, at)[..., None]
        return torch.cat([boxes, likely[..., None], kind.to(x.dtype)], 2)


def test_after_suppression_a_class_is_a_number() -> None:
    with pytest.raises(SourceError, match=r"with the settings classes=NUMBER"):
        exported(seeded(Nms), SIZE)
    explainer = exported(seeded(Nms), SIZE, labels=["cat", "dog", "cow"])
    expected_form = {"layout": "final", "boxes": "xyxy", "units": "pixels", "classes": "3"}
    assert explainer.metadata.objective.settings.items() >= expected_form.items()

    def best(y: Tensor) -> Tensor:
        found = []
        for row in y:
            iou = box_iou(row[:, :4].detach(), row[:1, :4].detach())[:, 0]
            w = row[:, 4].detach() * iou * (iou > 0.5) * (row[:, 5] == row[0, 5])
            found.append((w * row[:, 4]).sum() / w.sum())
        return torch.stack(found)

    explanation = explainer(X.numpy())
    score, expected = gradient(seeded(Nms), X, best)
    close(explanation.objective, score)
    close(explanation.pullback, expected)
    assert set(explanation.names) <= {"cat", "dog", "cow"}


class Queries(nn.Module):
    """Boxes and scores in one, [N, A, 4+C], as RT-DETR's of Ultralytics; or turned."""

    def __init__(self, classes: int, turned: bool) -> None:
        super().__init__()
        self.detr, self.turned = Detr(), turned
        self.detr.classes = nn.Linear(12, classes)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.detr(x)
        y = torch.cat([parts["pred_boxes"], parts["logits"].sigmoid()], 2)
        return y.transpose(1, 2) if self.turned else y


@pytest.mark.parametrize(("classes", "turned"), [(40, False), (26, False), (40, True)])
def test_boxes_may_be_fewer_than_the_numbers_of_each(classes: int, turned: bool) -> None:
    """30 boxes of 44 or of 30 numbers: the graph shows which axis begins with a box."""
    source = seeded(lambda: Queries(classes, turned))
    explainer = exported(source, SIZE, settings={"boxes": "cxcywh"})
    assert explainer.metadata.objective.classes == classes

    def best(y: Tensor) -> Tensor:
        found = []
        for row in y.transpose(1, 2) if turned else y:
            boxes, likely = as_corners(row[None, :, :4])[0].detach(), row[:, 4:].detach()
            at = likely.max(1)[0].argmax()
            iou, c = box_iou(boxes, boxes[at][None])[:, 0], likely[at].argmax()
            w = iou * (iou > 0.5) * likely[:, c]
            found.append((w * row[:, 4 + c]).sum() / w.sum())
        return torch.stack(found)

    explanation = explainer(X.numpy())
    score, expected = gradient(source, X, best)
    close(explanation.objective, score)
    close(explanation.pullback, expected)


@pytest.mark.parametrize(
    ("source", "within", "settings"),
    [
        (network("yolox"), "yolo.stem.0", {}),
        (seeded(lambda: Queries(10, False)), "detr.stem.0", {"boxes": "cxcywh"}),
    ],
    ids=["grid", "relative"],
)
def test_by_a_feature_map_boxes_are_the_images(
    source: nn.Module, within: str, settings: dict[str, str]
) -> None:
    by_image = exported(source, SIZE, settings=settings)(X.numpy())
    explanation = exported(source, SIZE, settings=settings, wrt=within)({"x": X.numpy()})
    assert explanation.pullback.shape[2:] != X.shape[2:]
    for name in ("explained_box", "explained_class"):
        np.testing.assert_allclose(
            explanation.outputs[name], by_image.outputs[name], rtol=1e-4, atol=1e-3
        )
    close(explanation.objective, by_image.objective)


def test_relevances_do_not_reach_what_decodes_boxes() -> None:
    """A Softmax, which has no relevance. Boxes apart from the scores are the same network's."""
    explanation, expected = (
        exported(network(kind), SIZE, method="lrp-epsilon")(X.numpy())
        for kind in ("yolov8", "yolo-nas")
    )
    close(explanation.pullback, expected.pullback)


class One(nn.Module):
    """A detector of one box."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Conv2d(3, CLASSES, SIZE, SIZE)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        scores = self.network(x).flatten(2).transpose(1, 2).repeat(1, 4, 1).sigmoid()
        box = torch.tensor([8.0, 8, 40, 40], dtype=x.dtype).expand(len(x), 3, 4)
        boxes = torch.cat([box, 0 * box[:, :1]], 1)
        return {"boxes": boxes + 1e-9 * scores[..., :1], "scores": scores}


def test_where_nothing_is_found_all_is_0() -> None:
    options = {"settings": {"boxes": "xyxy", "units": "pixels"}}
    explainer = exported(seeded(One), SIZE, **options)
    found = explainer(X.numpy())
    assert (found.objective > 0).all()
    assert (found.targets >= 0).all()
    for nothing in (
        explainer(X.numpy(), -2),
        explainer(X.numpy(), -5),
        explainer(X.numpy(), box=[50, 50, 60, 60]),
    ):
        assert not nothing.objective.any()
        assert not nothing.pullback.any()
        assert nothing.names == ["nothing found"] * 2
    assert not explainer(X.numpy(), -2).outputs["explained_box"].any()
