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
SIDES = torch.tensor([SIZE, SIZE, SIZE, SIZE], dtype=torch.float64)


def as_corners(boxes: Tensor) -> Tensor:
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], 2)


class Yolo(nn.Module):
    """[N, 4+C, A] as YOLOv8's, or [N, A, 5+C] as YOLOv5's, with three grids."""

    def __init__(self, objectness: bool) -> None:
        super().__init__()
        self.objectness = objectness
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, 4, 1), nn.ReLU())
        channels = 4 + objectness + CLASSES
        self.heads = nn.ModuleList(nn.Conv2d(6, channels, 3, s // 4, 1) for s in (8, 16, 32))

    def forward(self, x: Tensor) -> Tensor:
        x, levels = self.stem(x), []
        for stride, head in zip((8, 16, 32), self.heads, strict=True):
            y = head(x)
            n = y.shape[-1]
            at = stride * (torch.arange(n, dtype=x.dtype) + 0.5)
            centre = torch.stack([at.expand(n, n), at[:, None].expand(n, n)])
            boxes = [centre + stride * y[:, :2].tanh(), 3 * stride * (1 + y[:, 2:4].tanh())]
            levels.append(torch.cat([*boxes, (4 * y[:, 4:]).sigmoid()], 1).flatten(2))
        found = torch.cat(levels, 2)
        return found.transpose(1, 2) if self.objectness else found


class Pair(nn.Module):
    """Boxes and scores apart: raw, as SSD's and RetinaNet's heads are once decoded, or DETR's."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.yolo = kind, Yolo(False)
        self.background = nn.Parameter(torch.zeros(1, 1, 1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        boxes, scores = self.yolo(x).transpose(1, 2).split([4, CLASSES], 2)
        scores = scores.logit()
        nothing = self.background.expand(*scores.shape[:2], 1)
        if self.kind == "detr":
            relative = (boxes / SIZE).clamp(1e-3, 1 - 1e-3)
            return {
                "logits": torch.cat([scores, nothing], 2),
                "pred_boxes": relative.logit().sigmoid(),
            }
        corners = torch.cat(
            [boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], 2
        )
        if self.kind == "ssd":
            return {"boxes": corners, "scores": torch.cat([nothing, scores], 2).softmax(2)}
        return {"boxes": corners, "scores": scores}


def read(output: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes in parts of the image, scores, probabilities."""
    if isinstance(output, Tensor):
        y = output if output.shape[1] > output.shape[2] else output.transpose(1, 2)
        boxes, scores = y[..., :4], y[..., -CLASSES:]
        scores = scores * y[..., 4:5] if y.shape[2] > 4 + CLASSES else scores
        return as_corners(boxes) / SIDES, scores, scores
    if "pred_boxes" in output:
        boxes, logits = output["pred_boxes"], output["logits"]
        return as_corners(boxes), logits[..., :-1], logits.softmax(2)[..., :-1]
    boxes, scores = output["boxes"] / SIDES, output["scores"]
    if scores.shape[2] > CLASSES:
        return boxes, scores[..., 1:], scores[..., 1:]
    return boxes, scores, scores.sigmoid()


def objective(target: int, box: list[float] | None = None) -> Any:
    """What the objective should be, by torchvision's own suppression."""

    def of(output: Any) -> Tensor:
        found = []
        for boxes, scores, likely in zip(*read(output), strict=True):
            boxes, likely = boxes.detach(), likely.detach()
            by = likely.max(1)[0] if target < 0 else likely[:, target]
            kept = nms(boxes, by, 0.5)
            at = kept[-1 - target if target < 0 else 0]
            b = boxes[at] if box is None else torch.tensor(box) / SIDES
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
    "yolov8": lambda: Yolo(False),
    "yolov5": lambda: Yolo(True),
    "retinanet": lambda: Pair("retinanet"),
    "ssd": lambda: Pair("ssd"),
    "detr": lambda: Pair("detr"),
}
BOX = [10.0, 5, 40, 50]


def network(kind: str) -> nn.Module:
    return seeded(NETWORKS[kind])


@pytest.mark.parametrize(
    ("target", "box"),
    [(-1, None), (-2, None), (-7, None), (1, None), (-1, BOX), (-2, BOX), (2, BOX)],
)
@pytest.mark.parametrize(
    "kind",
    [
        *("yolov8", "yolov5", "detr"),
        pytest.param("ssd", marks=pytest.mark.sweep),
        pytest.param("retinanet", marks=pytest.mark.sweep),
    ],
)
def test_the_score_of_an_object(
    kind: str, target: int, box: list[float] | None, tmp_path: Path
) -> None:
    explainer = exported(network(kind), tmp_path / "e.onnx", SIZE)
    assert explainer.metadata.objective.name == "detection"
    given = {} if box is None else {"box": box}
    explanation = explainer(X.numpy(), target, **given)
    score, expected = gradient(network(kind), X, objective(target, box))
    close(explanation.objective, score)
    close(explanation.pullback, expected)
    if box is not None:
        np.testing.assert_allclose(explanation.outputs["explained_box"], [box] * 2, rtol=1e-5)
    assert explanation.targets.shape == (2,)
    assert (explanation.targets >= 0).all()


class Yolox(nn.Module):
    """[N, A, 5+C] as YOLOX's: undecoded, or what is made of it."""

    def __init__(self, decoded: bool) -> None:
        super().__init__()
        self.decoded, self.yolo = decoded, Yolo(True)

    def forward(self, x: Tensor) -> Tensor:
        x, levels = self.yolo.stem(x), []
        for stride, head in zip((8, 16, 32), self.yolo.heads, strict=True):
            y = head(x)
            n = y.shape[-1]
            at = torch.arange(n, dtype=x.dtype)
            boxes = [y[:, :2], y[:, 2:4]]
            if self.decoded:
                place = torch.stack([at.expand(n, n), at[:, None].expand(n, n)])
                boxes = [(boxes[0] + place) * stride, boxes[1].exp() * stride]
            scores = [y[:, 4:5].sigmoid(), y[:, 5:].sigmoid()]
            levels.append(torch.cat([*boxes, *scores], 1).flatten(2))
        return torch.cat(levels, 2).transpose(1, 2)


def test_undecoded_boxes_are_decoded(tmp_path: Path) -> None:
    found = []
    for decoded in (False, True):
        path = tmp_path / f"{decoded}.onnx"
        explainer = exported(seeded(partial(Yolox, decoded)), path, SIZE)
        boxes = explainer.metadata.objective.settings["boxes"]
        assert boxes == ("cxcywh" if decoded else "grid")
        found.append(explainer(X.numpy(), -2))
    raw, expected = found
    for name in ("explained_box", "explained_class"):
        np.testing.assert_allclose(raw.outputs[name], expected.outputs[name], rtol=1e-4)
    np.testing.assert_allclose(raw.objective, expected.objective, rtol=1e-5)
    close(raw.pullback, expected.pullback)


def test_ranks_are_different_objects(tmp_path: Path) -> None:
    explainer = exported(network("yolov8"), tmp_path / "e.onnx", SIZE)
    found = [explainer(X.numpy(), -k).outputs["explained_box"] for k in range(1, 11)]
    for image in range(2):
        boxes = torch.from_numpy(np.stack([boxes[image] for boxes in found]))
        overlap = box_iou(boxes, boxes) - torch.eye(10)
        assert overlap.max() <= 0.5


def test_several_objects_at_once(tmp_path: Path) -> None:
    one = exported(network("yolov5"), tmp_path / "one.onnx", SIZE)
    many = exported(network("yolov5"), tmp_path / "many.onnx", SIZE, multi_target=True)
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
    ],
)
def test_a_wrong_object_is_a_sentence(given: Any, message: str, tmp_path: Path) -> None:
    explainer = exported(network("yolov8"), tmp_path / "e.onnx", SIZE)
    with pytest.raises(InputError, match=message):
        explainer(X.numpy(), **given)


def test_what_is_no_detector(tmp_path: Path) -> None:
    linear = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4))
    with pytest.raises(
        SourceError, match=r"does not fit: no output is .*; its outputs: output \[N, 4\]"
    ):
        exported(seeded(lambda: linear), tmp_path / "e.onnx", objective="detection")


def test_its_picture_shows_the_box(tmp_path: Path) -> None:
    explanation = exported(network("yolov8"), tmp_path / "e.onnx", SIZE)(X.numpy(), -1, box=BOX)
    drawn = np.asarray(explanation[0].draw("overlay"))
    assert (drawn[5, 10:41] == 255).all()
    explanation.save(tmp_path / "grid.png", "grid")
