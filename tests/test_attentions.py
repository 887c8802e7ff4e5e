"""`attentions`: each layer's attention beside the explanation, as PyTorch computes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.swin_transformer import SwinTransformer
from typer.testing import CliRunner

import onnxplain
from onnxplain.cli import app
from onnxplain.errors import SourceError

from .small_transformers import IMAGES, SIZE, TARGETS, made

BLOCKS = [f"features.{stage}.{block}.attn" for stage in (1, 3) for block in (0, 1)]


class Merged(nn.Module):
    """Heads that share the batch's axis, in the order in which a view puts them; one block."""

    def __init__(self, by_head: bool) -> None:
        super().__init__()
        self.by_head = by_head
        self.patches, self.qkv = nn.Conv2d(3, 12, 8, stride=8), nn.Linear(12, 36)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).mT
        q, k, v = (part.unflatten(-1, (3, 4)) for part in self.qkv(x).chunk(3, -1))  # [N, T, 3, 4]
        perm = (2, 0, 1, 3) if self.by_head else (0, 2, 1, 3)
        q, k, v = (part.permute(*perm).flatten(0, 1) for part in (q, k, v))
        read = torch.bmm(torch.softmax(torch.bmm(q, k.mT) / 2, -1), v)
        if self.by_head:
            read = read.unflatten(0, (3, -1)).permute(1, 2, 0, 3)
        else:
            read = read.unflatten(0, (-1, 3)).permute(0, 2, 1, 3)
        return self.head((x + read.flatten(2)).tanh().mean(1))


def seen(module: nn.Module, images: np.ndarray, patched: pytest.MonkeyPatch) -> list[np.ndarray]:
    """What every softmax gives, also that within PyTorch's fused attention."""
    found: list[np.ndarray] = []
    softmax = torch.softmax

    def put_down(x: Tensor, dim: int) -> Tensor:
        found.append(softmax(x, dim).detach().numpy())
        return softmax(x, dim)

    def attend(q: Tensor, k: Tensor, v: Tensor, *_: Any) -> Tensor:
        return put_down(q @ k.mT / q.shape[-1] ** 0.5, -1) @ v

    with patched.context() as within:
        within.setattr(functional, "scaled_dot_product_attention", attend)
        within.setattr(functional, "softmax", put_down)
        within.setattr(torch, "softmax", put_down)
        module.double()(torch.tensor(images).double())
    module.float()
    return found


@pytest.fixture(scope="module")
def swin(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    """Windows of 4 × 4 in 16 × 16 and in 8 × 8 tokens, every second block's shifted."""
    torch.manual_seed(0)
    module = SwinTransformer([4, 4], 12, [2, 2], [1, 2], [4, 4], num_classes=5).eval()
    path = tmp_path_factory.mktemp("swin") / "x.onnx"
    onnxplain.export(module, path, size=64, method="gradient", attentions=True)
    return module, path


@pytest.mark.parametrize(
    "options",
    [
        {"method": "semantic", "multi_target": True},
        {"method": "gradient", "estimator": "smoothgrad", "parameters": {"samples": 2}},
        {"method": "attention-rollout"},
    ],
)
def test_attention_is_pytorchs_own(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module, path = made(), tmp_path / "x.onnx"
    onnxplain.export(module, path, size=SIZE, attentions=True, **options)
    targets = [[0, 1], [2, 3]] if options.get("multi_target") else TARGETS
    explanation = onnxplain.load(path, "cpu")(IMAGES, targets)
    found = explanation.attentions
    assert list(found) == ["blocks.0.attention", "blocks.1.attention"]
    for array, expected in zip(found.values(), seen(module, IMAGES, monkeypatch), strict=True):
        assert array.shape == (2, 3, 7, 7)
        np.testing.assert_allclose(array, expected, atol=1e-5)
    first = "blocks.0.attention"
    assert np.array_equal(explanation[1].attentions[first], found[first][1:])


def test_windows_have_an_axis_of_their_own(
    swin: tuple[nn.Module, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, path = swin
    images = np.random.default_rng(1).standard_normal((3, 3, 64, 64)).astype(np.float32)
    found = onnxplain.load(path, "cpu")(images, batch_size=2).attentions
    assert list(found) == BLOCKS
    assert [array.shape for array in found.values()] == [(3, 16, 1, 16, 16)] * 2 + [
        (3, 4, 2, 16, 16)
    ] * 2
    for array, expected in zip(found.values(), seen(module, images, monkeypatch), strict=True):
        np.testing.assert_allclose(array.reshape(expected.shape), expected, atol=1e-5)


def test_info_lists_them_and_a_fresh_derivation_has_them_too(swin: tuple[nn.Module, Path]) -> None:
    module, path = swin
    shown = CliRunner().invoke(app, ["info", str(path)], env={"COLUMNS": "200"}).output
    assert "attention.features.1.0.attn [N, 16, 1, 16, 16]" in shown
    assert "attention.features.3.1.attn [N, 4, 2, 16, 16]" in shown
    explainer = onnxplain.load(path, "cpu")
    assert explainer.metadata.parameters["attentions"] is True
    assert onnxplain.verify(path, module, provider="cpu").passed


def test_heads_that_share_the_batchs_axis(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, path = Merged(by_head=False).eval(), tmp_path / "x.onnx"
    onnxplain.export(module, path, size=SIZE, method="gradient", attentions=True)
    (found,) = onnxplain.load(path, "cpu")(IMAGES).attentions.values()
    assert found.shape == (2, 3, 6, 6)
    (expected,) = seen(module, IMAGES, monkeypatch)
    np.testing.assert_allclose(found.reshape(6, 6, 6), expected, atol=1e-5)
    with pytest.raises(SourceError, match="which sample each of its rows is of is not to be seen"):
        onnxplain.export(Merged(by_head=True).eval(), path, size=SIZE, attentions=True)


def test_what_goes_without_attention_is_said(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(SourceError, match=r"has no attention to put out .*; leave out attentions"):
        onnxplain.export(network, tmp_path / "x.onnx", size=SIZE, attentions=True)
    with pytest.raises(SourceError, match="unroll explains several after one another: choose one"):
        onnxplain.export(made(), tmp_path / "x.onnx", size=SIZE, attentions=True, unroll=2)
