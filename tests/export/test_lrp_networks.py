"""Relevances of whole networks: against zennit where its rules are the same, and against the
reference, both in float64. The ε rule divides by sums that may be near 0, where float32 is no
measure of a rule: there the graph is evaluated in float64 as well."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import DenseNet, ResNet
from torchvision.models.resnet import BasicBlock
from torchvision.models.vgg import VGG, make_layers
from zennit.attribution import Gradient
from zennit.torchvision import VGGCanonizer

import onnxplain
from onnxplain.export.sources.source import torch_network
from onnxplain.reference.float64 import evaluate_in_float64
from onnxplain.reference.pytorch import explain

from ..reference.zennit_composites import composite
from .graphs import cosine

METHODS = ("lrp-zplus", "lrp-epsilon", "epsilon-plus")


def of_zennit(module: nn.Module, images: np.ndarray, targets: np.ndarray, method: str) -> Any:
    """In float64."""
    leaf = torch.tensor(images, dtype=torch.float64, requires_grad=True)
    with Gradient(module.double(), composite(method, [VGGCanonizer()])) as attributor:
        _, found = attributor(
            leaf, lambda y: functional.one_hot(torch.tensor(targets), y.shape[1]).to(y)
        )
    module.float()
    return found.detach().numpy()


def of_ours(
    module: nn.Module, images: np.ndarray, targets: np.ndarray, method: str, path: Path
) -> np.ndarray:
    """In ONNX Runtime, float32."""
    example = torch.zeros(2, *images.shape[1:])
    onnxplain.export(module, path, example=example, method=method)
    return onnxplain.load(path, threads=1)(images, targets).pullback


def against_zennit(
    module: nn.Module, images: np.ndarray, targets: np.ndarray, method: str, path: Path
) -> None:
    found = of_ours(module, images, targets, method, path)
    exact = evaluate_in_float64(path, {"image": images, "target": targets})["pullback"]
    expected = of_zennit(module, images, targets, method)
    for rough, ours, theirs in zip(found, exact, expected, strict=True):
        # Folded batch norms are rounded to float32 in the file: 0.99992 for vgg11_bn by ε.
        assert cosine(ours, theirs) >= 0.9999
        assert cosine(rough, theirs) >= (0.999999 if method == "lrp-zplus" else 0.99)
    np.testing.assert_allclose(exact.sum((1, 2, 3)), expected.sum((1, 2, 3)), rtol=1e-2)


def batch_of(photographs: dict[str, np.ndarray], size: int) -> np.ndarray:
    """[3, 3, size, size] in ImageNet's normalisation."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    resized = [
        functional.interpolate(
            ((torch.tensor(p) / 255 - mean) / std).permute(2, 0, 1)[None], (size, size), mode="area"
        )
        for p in photographs.values()
    ]
    return torch.cat(resized).numpy()


def awake(module: nn.Module) -> nn.Module:
    """Every branch counts: no bias and no head is 0, no scale 1 or next to nothing. Batch norms
    are as trained ones are, some scales negative and the statistics anything."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
            elif parameter.ndim == 1 or "layer_scale" in name:
                parameter.uniform_(0.5, 1.5)
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d) and layer.weight is not None:
                layer.weight.mul_(torch.where(torch.rand(layer.weight.shape) < 0.2, -1.0, 1.0))
                assert layer.running_mean is not None
                assert layer.running_var is not None
                layer.running_mean.normal_(std=0.1)
                layer.running_var.uniform_(0.5, 1.5)
    return module.eval()


def small_vgg(batch_norm: bool) -> nn.Module:
    torch.manual_seed(0)
    layers: list[str | int] = [16, "M", 32, "M", 32, 48, "M"]
    network = VGG(make_layers(layers, batch_norm), num_classes=10, init_weights=False)
    network.avgpool = nn.AdaptiveAvgPool2d(2)
    dense = (nn.Linear(192, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 10))
    network.classifier = nn.Sequential(*dense)
    return awake(network)


@pytest.mark.parametrize(
    ("batch_norm", "method"),
    [
        (True, "lrp-zplus"),
        *(pytest.param(True, method, marks=pytest.mark.sweep) for method in METHODS[1:]),
        *(pytest.param(False, method, marks=pytest.mark.sweep) for method in METHODS),
    ],
)
def test_a_small_vgg_agrees_with_zennit(
    batch_norm: bool, method: str, photographs: dict[str, np.ndarray], tmp_path: Path
) -> None:
    images, targets = batch_of(photographs, 64), np.array([1, 5, 7])
    against_zennit(small_vgg(batch_norm), images, targets, method, tmp_path / "x.onnx")


@pytest.mark.sweep
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["vgg11", "vgg11_bn"])
def test_torchvisions_vgg_agrees_with_zennit(
    name: str, method: str, photographs: dict[str, np.ndarray], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = awake(torchvision.models.get_model(name))
    images, targets = batch_of(photographs, 224)[:1], np.array([281])
    against_zennit(network, images, targets, method, tmp_path / "x.onnx")


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, np.ndarray, np.ndarray]:
    """A small trained network, and test images with their classes."""
    torch.manual_seed(0)
    data = load_digits()
    x = torch.tensor(data.images[:, None] / 8 - 1, dtype=torch.float32)
    y = torch.tensor(data.target)
    network = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 10)),
    )
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(150):
        at = torch.randint(1500, (128,))
        loss = functional.cross_entropy(network(x[at]), y[at])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert (network(x[1500:]).argmax(1) == y[1500:]).float().mean() > 0.9
    return network.eval(), x[1500:1516].numpy(), y[1500:1516].numpy()


@pytest.mark.parametrize("method", METHODS)
def test_a_trained_network_agrees_with_zennit(
    method: str, digits: tuple[nn.Module, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    against_zennit(*digits, method, tmp_path / "x.onnx")


def against_reference(network: nn.Module, images: np.ndarray, path: Path) -> None:
    targets = np.array([281, 3])
    found = of_ours(network, images, targets, "lrp-zplus", path)
    _, relevance = explain(network.double(), t(images), torch.tensor(targets), "lrp-zplus")
    network.float()
    for ours, theirs in zip(found, relevance.numpy(), strict=True):
        assert cosine(ours, theirs) >= 0.99999
        np.testing.assert_allclose(ours.sum(), theirs.sum(), rtol=1e-4)
        assert ours.sum() > 1e-3


def t(array: np.ndarray) -> Tensor:
    return torch.tensor(array, dtype=torch.float64)


@pytest.mark.sweep
@pytest.mark.parametrize("name", ["resnet50", "densenet121"])
def test_torchvisions_networks_agree_with_the_reference(
    name: str, photographs: dict[str, np.ndarray], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = awake(torchvision.models.get_model(name))
    against_reference(network, batch_of(photographs, 64)[:2], tmp_path / "x.onnx")


@pytest.mark.sweep
def test_a_trained_efficientnet_agrees_with_the_reference_on_photographs(
    photographs: dict[str, np.ndarray], tmp_path: Path
) -> None:
    network = torch_network("efficientnet-lite0").module
    against_reference(network, batch_of(photographs, 224)[:2], tmp_path / "x.onnx")


SMALL: dict[str, Callable[[], nn.Module]] = {
    "residual sums": lambda: ResNet(BasicBlock, [1, 1, 1, 1], num_classes=300),
    "concatenations": lambda: DenseNet(8, (2, 3), 16, num_classes=300),
}


@pytest.mark.parametrize("name", SMALL)
def test_small_ones_agree_with_the_reference(
    name: str, photographs: dict[str, np.ndarray], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    against_reference(awake(SMALL[name]()), batch_of(photographs, 64)[:2], tmp_path / "x.onnx")


EVERYWHERE: dict[str, dict[str, Any]] = {
    "resnet50": {},
    "densenet121": {},
    "convnext_tiny": {},
    "vit_b_16": {"image_size": 64},
    "mobilenet_v3_large": {},
    "efficientnet_b0": {},
    "swin_t": {},
    "inception_v3": {"init_weights": False},
    "regnet_y_400mf": {},
    "pvt_v2_b1": {},
    "convnextv2_atto": {},
    "gmlp_s16_224": {},
    "resnest14d": {},
    "poolformer_s12": {},
}


@pytest.mark.sweep
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", EVERYWHERE)
def test_every_kind_of_network_has_relevances(
    name: str, method: str, photographs: dict[str, np.ndarray], tmp_path: Path
) -> None:
    """Untrained, `lrp-epsilon` divides by sums that happen to be near 0: finite is all there is."""
    torch.manual_seed(0)
    theirs = name in torchvision.models.list_models()
    make = torchvision.models.get_model if theirs else timm.create_model
    network = awake(make(name, **EVERYWHERE[name]))
    size = {"inception_v3": 96, "gmlp_s16_224": 224}.get(name, 64)
    images = batch_of(photographs, size)[:1]
    found = of_ours(network, images, np.array([-1]), method, tmp_path / "x.onnx")
    assert np.isfinite(found).all()
    assert found.any()
    if method == "lrp-zplus":
        assert found.min() >= 0
        assert 1e-4 < found.sum() <= 1.001
