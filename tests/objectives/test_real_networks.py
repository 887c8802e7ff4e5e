"""One network of every kind as its package has it: gradients against PyTorch's in float64.

Small sizes, untrained; `onnxplain.reference` is beside the methods that replace derivatives.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

import onnxplain
from onnxplain.reference.float64 import evaluate_in_float64
from onnxplain.reference.pytorch import explain
from onnxplain.runtime.inputs.objective import as_inputs

from .networks import Array, close, gradient, images, seeded

pytestmark = pytest.mark.sweep


def lively(network: nn.Module) -> nn.Module:
    """With statistics of their own, as those of an untrained batch norm let signals fade."""
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            generator = torch.Generator().manual_seed(part.num_features)
            part.running_mean.normal_(0, 0.1, generator=generator)  # type: ignore[union-attr]
            part.running_var.uniform_(0.5, 1.5, generator=generator)  # type: ignore[union-attr]
    return network


def fcn() -> nn.Module:
    make = torchvision.models.segmentation.fcn_resnet50
    return lively(seeded(lambda: make(weights=None, weights_backbone=None, num_classes=5)))


def lraspp() -> nn.Module:
    make = torchvision.models.segmentation.lraspp_mobilenet_v3_large
    return lively(seeded(lambda: make(weights=None, weights_backbone=None, num_classes=5)))


class Decoded(nn.Module):
    """torchvision's detectors up to where they suppress: decoded boxes, and raw scores."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        detector: Any = self.detector
        features = list(detector.backbone(x).values())
        heads = detector.head(features)
        sizes = torchvision.models.detection.image_list.ImageList(x, [tuple(x.shape[-2:])])
        (anchors,) = detector.anchor_generator(sizes, features)
        regression = heads["bbox_regression"]
        decoded = detector.box_coder.decode_single(
            regression.flatten(0, 1), anchors.repeat(len(x), 1)
        )
        return {"boxes": decoded.unflatten(0, (len(x), -1)), "scores": heads["cls_logits"]}


def ssdlite() -> nn.Module:
    make = torchvision.models.detection.ssdlite320_mobilenet_v3_large
    return Decoded(
        lively(seeded(lambda: make(weights=None, weights_backbone=None, num_classes=5)))
    ).eval()


def retinanet() -> nn.Module:
    make = torchvision.models.detection.retinanet_resnet50_fpn
    return Decoded(
        lively(seeded(lambda: make(weights=None, weights_backbone=None, num_classes=5)))
    ).eval()


def detr() -> nn.Module:
    from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

    backbone = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 16, 24], depths=[1, 1, 1, 1])
    config = DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None,
        backbone_config=backbone, d_model=16, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=24,
        decoder_ffn_dim=24, num_queries=9, num_labels=4,
    )  # fmt: skip
    return lively(seeded(lambda: DetrForObjectDetection(config)))


def clip() -> nn.Module:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=24, intermediate_size=32, projection_dim=12, num_hidden_layers=2,
        num_attention_heads=2, image_size=32, patch_size=8,
    )  # fmt: skip
    return seeded(lambda: CLIPVisionModelWithProjection(config))


class Crnn(nn.Module):
    """Convolutions, two bidirectional LSTMs and a row of characters with time first."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.MaxPool2d((8, 2)),
        )  # fmt: skip
        self.lstm = nn.LSTM(24, 16, num_layers=2, bidirectional=True)
        self.head = nn.Linear(32, 11)

    def forward(self, x: Tensor) -> Tensor:
        steps = self.features(x).mean(2).permute(2, 0, 1)
        return self.head(self.lstm(steps)[0]).log_softmax(2)


def region(side: int) -> Array:
    mask = np.zeros((side, side))
    mask[side // 4 : side // 2, side // 4 :] = 1
    return mask


def over(mask: Array) -> Callable[[Any], Tensor]:
    m = torch.from_numpy(mask)
    return lambda output: (output["out"][:, 2] * m).sum((1, 2)) / m.sum()


def held(output: Any, box: Array, kind: int, background: str) -> Tensor:
    """The score of a class in a box, over boxes that overlap it."""
    from torchvision.ops import box_iou

    boxes, scores = (
        (output["boxes"], output["scores"])
        if "boxes" in output
        else (output["pred_boxes"], output["logits"])
    )
    if background != "none":
        likely = scores.softmax(2)
        part = slice(1, None) if background == "first" else slice(None, -1)
        scores, likely = scores[..., part], likely[..., part]
    else:
        likely = scores.sigmoid()
    found = []
    for b, s, p in zip(boxes.detach(), scores, likely.detach(), strict=True):
        iou = box_iou(b, torch.from_numpy(box)[None].to(b))[:, 0]
        iou = torch.where(iou > 0.5, iou, 0) if (iou > 0.5).any() else iou
        w = iou * p[:, kind]
        found.append((w * s[:, kind]).sum() / w.sum())
    return torch.stack(found)


QUERY = torch.arange(12.0).double()

CASES: dict[str, tuple[Callable[[], nn.Module], int, dict[str, Any], dict[str, Any], Any]] = {
    "fcn_resnet50": (fcn, 64, {}, {"targets": 2, "region": region(64)}, over(region(64))),
    "lraspp": (lraspp, 64, {}, {"targets": 2, "region": region(64)}, over(region(64))),
    "ssdlite": (
        ssdlite, 96, {"settings": {"scores": "softmax", "background": "first"}},
        {"targets": 1, "box": [10, 20, 70, 80]},
        lambda o: held(o, np.array([10.0, 20, 70, 80]), 1, "first"),
    ),
    "retinanet": (
        retinanet, 64, {"settings": {"scores": "sigmoid"}},
        {"targets": 3, "box": [8, 8, 50, 60]},
        lambda o: held(o, np.array([8.0, 8, 50, 60]), 3, "none"),
    ),
    "clip": (
        clip, 32, {"objective": "embedding", "output": "image_embeds"}, {"query": np.arange(12.0)},
        lambda o: functional.cosine_similarity(o["image_embeds"], QUERY[None]),
    ),
    "age": (
        lambda: lively(seeded(lambda: torchvision.models.resnet18(num_classes=1))), 64,
        {"objective": "value"}, {}, lambda y: y[:, 0],
    ),
    "crnn": (
        lambda: lively(seeded(Crnn)), 32, {}, {"targets": 4, "position": 3}, lambda y: y[3, :, 4]
    ),
}  # fmt: skip


@pytest.mark.parametrize("method", ["gradient", "excitation"])
@pytest.mark.parametrize("name", CASES)
def test_a_network_of_each_kind(name: str, method: str, tmp_path: Path) -> None:
    make, size, options, given, objective = CASES[name]
    path, x = tmp_path / "e.onnx", images(2, size)
    example = torch.zeros(1, 3, size, size)
    onnxplain.export(make(), path, example=example, method=method, **options)
    explainer = onnxplain.load(path, "cpu")
    explanation = explainer(x.numpy(), **given)
    if name == "crnn":  # explained before its LogSoftmax
        network = make()
        logits = Logits(network).eval()
        score, expected = gradient(logits, x, lambda y: y[3, :, 4])
        reference: nn.Module = logits
        objective = lambda y: y[3, :, 4]  # noqa: E731
    else:
        reference = make()
        score, expected = gradient(reference, x, objective)
    if method != "gradient":
        _, found = explain(reference.double(), x.double(), None, method, objective=objective)
        expected = found.numpy()
    close(explanation.objective, score, 1e-4)
    close(explanation.pullback, expected, 3e-2)
    # Where float32 rounds a ReLU open or shut, the same file in float64 does not.
    feeds = {"image": x.numpy(), **as_inputs(explainer.backend.signature, given_besides(given), 2)}
    if "target" in explainer.backend.inputs:
        feeds["target"] = np.full(2, given.get("targets", 0))
    alone = [
        evaluate_in_float64(path, {k: v[i : i + 1] for k, v in feeds.items()}, ["pullback"])
        for i in range(2)  # as some take one image alone
    ]
    exact = np.concatenate([found["pullback"] for found in alone])
    close(exact, expected, 1e-4 if method == "gradient" else 1e-3)


def given_besides(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name != "targets"}


class Logits(nn.Module):
    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        steps = self.network.features(x).mean(2).permute(2, 0, 1)
        return self.network.head(self.network.lstm(steps)[0])


def test_detr_is_recognised(tmp_path: Path) -> None:
    x = images(2, 64)
    onnxplain.export(detr(), tmp_path / "e.onnx", example=x[:1], method="gradient")
    explainer = onnxplain.load(tmp_path / "e.onnx", "cpu")
    said = explainer.metadata.objective
    assert (said.name, said.classes, said.settings["background"]) == ("detection", 4, "last")
    explanation = explainer(x.numpy(), -1)
    box, kind = explanation.outputs["explained_box"], explanation.targets

    def objective(output: Any) -> Tensor:
        centre, half = output.pred_boxes[..., :2], output.pred_boxes[..., 2:] / 2
        corners = 64 * torch.cat([centre - half, centre + half], 2)
        return torch.cat(
            [
                held(
                    {"boxes": corners[i : i + 1], "scores": output.logits[i : i + 1]},
                    box[i].astype(np.float64), int(kind[i]), "last",
                )
                for i in range(2)
            ]
        )  # fmt: skip

    score, expected = gradient(detr(), x, objective)
    close(explanation.objective, score, 1e-4)
    close(explanation.pullback, expected, 1e-4)
