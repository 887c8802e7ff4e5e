"""The semantic pullback of real networks, against the float64 PyTorch reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import timm
import torch
import torchvision

import onnxplain
from onnxplain.export.sources.source import torch_network
from onnxplain.reference.answers import compare
from onnxplain.runtime.inputs.batches import as_batch

NETWORKS: dict[str, tuple[int, dict[str, Any]]] = {  # name → size, arguments
    "resnet18": (64, {}),
    "convnext_atto": (64, {}),
    "vit_tiny_patch16_224": (64, {"img_size": 64, "depth": 3}),
}
MORE: dict[str, tuple[int, dict[str, Any]]] = {
    "resnet50": (64, {}),
    "convnext_tiny": (64, {}),
    "vit_b_16": (64, {"image_size": 64}),
    "vgg11_bn": (32, {}),
    "densenet121": (64, {}),
    "swin_t": (64, {}),
    "pvt_v2_b1": (64, {}),
    "mobilenet_v3_small": (64, {}),  # Hardswish, squeeze-and-excitation by Hardsigmoid
    "efficientnet_b0": (64, {}),  # SiLU, squeeze-and-excitation
    "convnextv2_atto": (64, {}),  # GlobalResponseNorm
    "poolformer_s12": (64, {}),  # GroupNorm
    "gmlp_s16_224": (224, {}),
    "resnest14d": (64, {}),  # split attention
}


def network(name: str, **arguments: Any) -> torch.nn.Module:
    """Untrained, and every branch awake: no scale is 1 or 1e-6, no bias and no head 0."""
    torch.manual_seed(0)
    theirs = torchvision.models.list_models()
    make = torchvision.models.get_model if name in theirs else timm.create_model
    module: torch.nn.Module = make(name, **arguments).eval()
    with torch.no_grad():
        for parameter_name, parameter in module.named_parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
            elif parameter.ndim == 1 or "layer_scale" in parameter_name:
                parameter.uniform_(0.5, 1.5)
    return module


def check(name: str, size: int, arguments: dict[str, Any], path: Path, batch: int = 2) -> None:
    module = network(name, **arguments)
    onnxplain.export(module, path, example=torch.zeros(2, 3, size, size), method="semantic")
    images = np.random.default_rng(0).standard_normal((batch, 3, size, size)).astype(np.float32)
    parity = compare(onnxplain.load(path, threads=1), module, images, np.array([-1, 7])[:batch])
    assert parity["logits"].relative_l2 <= 1e-4
    assert parity["pullback"].cosine >= 0.9999
    assert parity["pullback"].relative_l2 <= 1e-3
    assert {node.domain for node in onnx.load(path).graph.node} == {""}


@pytest.mark.parametrize("name", NETWORKS)
def test_semantic_agrees_with_the_float64_reference(name: str, tmp_path: Path) -> None:
    check(name, *NETWORKS[name], tmp_path / "explain.onnx")


@pytest.mark.sweep
@pytest.mark.parametrize("name", MORE)
def test_semantic_agrees_on_gates_and_norms_of_other_kinds(name: str, tmp_path: Path) -> None:
    check(name, *MORE[name], tmp_path / "explain.onnx")


@pytest.mark.sweep
@pytest.mark.parametrize("name", ["resnet50", "convnext_tiny", "vit_b_16"])
def test_semantic_agrees_at_full_size(name: str, tmp_path: Path) -> None:
    check(name, 224, {}, tmp_path / "explain.onnx", batch=1)


def test_semantic_of_a_trained_efficientnet_agrees_on_real_photographs(
    photographs: dict[str, np.ndarray], tmp_path: Path
) -> None:
    path = tmp_path / "lite0.onnx"
    onnxplain.export("efficientnet-lite0", path, method="semantic", live_temperature=True)
    explainer = onnxplain.load(path, threads=1)
    assert explainer.metadata.parameters == {"temperature": 1.0}
    batch, _ = as_batch(list(photographs.values()), explainer.metadata.preprocessing)
    parity = compare(explainer, torch_network("efficientnet-lite0").module, batch, np.full(3, -1))
    assert all(p.relative_l2 <= 1e-4 and p.cosine >= 0.99999 for p in parity.values())


class Mixed(torch.nn.Module):
    """One of each kind: a soft pool, a norm, attention over the pixels, a gate, an activation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = torch.nn.GroupNorm(2, 8)
        self.pool = torch.nn.MaxPool2d(3, 2, padding=1)
        self.attention = torch.nn.MultiheadAttention(8, 2, batch_first=True)
        self.squeeze = torch.nn.Conv2d(8, 8, 1)
        self.head = torch.nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(torch.nn.functional.silu(self.norm(self.stem(x))))
        x = x * torch.sigmoid(self.squeeze(x.mean((2, 3), keepdim=True)))
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.attention(tokens, tokens, tokens)[0]
        return self.head(torch.nn.functional.leaky_relu(tokens.mean(1)))


@pytest.mark.parametrize("multi_target", [False, True])
def test_the_factor_is_live_and_the_same_for_every_target(
    multi_target: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    module, path = Mixed().eval(), tmp_path / "mixed.onnx"
    onnxplain.export(
        module,
        path,
        example=torch.zeros(2, 3, 20, 24),
        method="semantic",
        live_temperature=True,
        multi_target=multi_target,
    )
    explainer = onnxplain.load(path, threads=1)
    images = np.random.default_rng(0).standard_normal((3, 3, 20, 24)).astype(np.float32)
    targets = np.array([[0, -1], [3, 4], [-2, 2]]) if multi_target else np.array([0, -1, 3])
    parity = compare(explainer, module, images, targets)
    assert parity["pullback"].relative_l2 <= 1e-4

    doubled = tmp_path / "doubled.onnx"
    onnxplain.export(
        module,
        doubled,
        example=torch.zeros(2, 3, 20, 24),
        method="semantic",
        temperature=2.0,
        multi_target=multi_target,
    )
    other = onnxplain.load(doubled, threads=1)
    assert compare(other, module, images, targets)["pullback"].relative_l2 <= 1e-4
    live = explainer(images, targets, temperature=2.0).pullback
    baked = other(images, targets).pullback
    np.testing.assert_allclose(live, baked, atol=1e-6)
    assert not np.allclose(live, explainer(images, targets).pullback, atol=1e-6)
