"""Real architectures agree with the float64 PyTorch reference, from any size and any batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import onnxplain
from onnxplain.export.sources.source import torch_network
from onnxplain.reference import pytorch
from onnxplain.reference.answers import compare
from onnxplain.reference.forward import forward_proto
from onnxplain.runtime.inputs.batches import as_batch

SIZES = {
    "resnet18": 64,
    "resnet50": 96,
    "vgg11_bn": 160,  # not a multiple of what its adaptive pool wants
    "densenet121": 128,
    "alexnet": 256,
    "squeezenet1_1": 161,
    "googlenet": 160,
    "mobilenet_v2": 96,
}
LONG = ("resnet50", "mobilenet_v2", "vgg11_bn", "alexnet", "densenet121", "googlenet")


@pytest.mark.parametrize(
    ("name", "size"),
    [
        *(
            pytest.param(*item, marks=pytest.mark.sweep if item[0] in LONG else ())
            for item in SIZES.items()
        ),
        *(pytest.param(name, 224, marks=pytest.mark.sweep) for name in SIZES),
    ],
)
def test_excitation_agrees_with_the_float64_reference(name: str, size: int, tmp_path: Path) -> None:
    path = tmp_path / "explain.onnx"
    onnxplain.export(name, path, weights="none", size=size)
    explainer = onnxplain.load(path, threads=1)
    module = torch_network(name, "none", (size, size)).module
    images = np.random.default_rng(size).standard_normal((3, 3, size, size)).astype(np.float32)
    for batch in (1, 3):
        parity = compare(explainer, module, images[:batch], np.array([-1, 7, -2])[:batch])
        for measured in parity.values():
            assert measured.relative_l2 <= 1e-4
            assert measured.cosine >= 0.99999

    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version >= 20
    assert {node.domain for node in model.graph.node} == {""}
    assert path.stat().st_size <= 1.05 * forward_proto(path).ByteSize()


def test_trained_efficientnet_agrees_on_a_real_photograph(
    lite0: Path, photographs: dict[str, np.ndarray]
) -> None:
    explainer = onnxplain.load(lite0, threads=1)
    batch, _ = as_batch([photographs["chelsea"]], explainer.metadata.preprocessing)
    module = torch_network("efficientnet-lite0").module
    parity = compare(explainer, module, batch, np.array([-1]))
    assert all(p.relative_l2 <= 1e-4 and p.cosine >= 0.99999 for p in parity.values())


def test_the_file_is_hardly_larger_than_the_forwards(lite0: Path, lite0_forward: Path) -> None:
    assert lite0.stat().st_size <= 1.05 * lite0_forward.stat().st_size


def test_trained_efficientnet_recognises_the_photographs(
    lite0: Path, photographs: dict[str, np.ndarray]
) -> None:
    explanation = onnxplain.load(lite0, threads=1)(list(photographs.values()))
    cat, coffee, rocket = explanation.names
    assert cat in ("Egyptian cat", "tabby", "tiger cat")
    assert coffee == "espresso"
    assert rocket == "missile"


@pytest.mark.parametrize(
    "method",
    [
        "gradient",
        "guided",
        pytest.param("deconvnet", marks=pytest.mark.sweep),
        pytest.param("input-x-gradient", marks=pytest.mark.sweep),
    ],
)
def test_baselines_agree_with_the_reference_on_a_trained_network(
    method: str, photographs: dict[str, np.ndarray], tmp_path: Path
) -> None:
    path = tmp_path / "explain.onnx"
    onnxplain.export("efficientnet-lite0", path, method=method)
    explainer = onnxplain.load(path, threads=1)
    batch, _ = as_batch(list(photographs.values()), explainer.metadata.preprocessing)
    parity = compare(explainer, torch_network("efficientnet-lite0").module, batch, np.full(3, -1))
    # A hard gate at a preactivation near zero may open in float32 and not in float64.
    assert parity["pullback"].relative_l2 <= 3e-2
    assert parity["pullback"].cosine >= 0.9999


def test_k_targets_from_one_forward_equal_k_runs(
    lite0: Path, photographs: dict[str, np.ndarray], tmp_path: Path
) -> None:
    path = tmp_path / "multi.onnx"
    onnxplain.export("efficientnet-lite0", path, temperature=1.0, multi_target=True)
    images = list(photographs.values())[:2]
    several = onnxplain.load(path, threads=1)(images, [[-1, 3, -2], [-1, 967, 5]])
    assert several.pullback.shape == (2, 3, 3, 224, 224)
    single = onnxplain.load(lite0, threads=1)
    for k in range(3):
        alone = single(images, several.targets[:, k])
        np.testing.assert_allclose(several.pullback[:, k], alone.pullback, rtol=1e-3, atol=1e-6)


def test_a_live_temperature_is_the_baked_one(
    lite0: Path, photographs: dict[str, np.ndarray], tmp_path: Path
) -> None:
    path = tmp_path / "live.onnx"
    onnxplain.export("efficientnet-lite0", path, temperature=0.3, live_temperature=True)
    live, image = onnxplain.load(path, threads=1), photographs["coffee"]
    baked = onnxplain.load(lite0, threads=1)(image)
    np.testing.assert_allclose(live(image, temperature=1.0).pullback, baked.pullback, atol=1e-5)
    assert not np.allclose(live(image).pullback, baked.pullback, atol=1e-5)  # its default is 0.3


class Tiny(torch.nn.Module):
    """A pool that overhangs, a residual branch, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.pool = torch.nn.MaxPool2d(3, 2, ceil_mode=True)
        self.block = torch.nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.head = torch.nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(torch.relu(self.stem(x)))
        x = torch.relu(x + self.block(x))
        return self.head(x.mean((2, 3)))


def test_a_users_own_module_is_left_in_its_mode(tmp_path: Path) -> None:
    module = Tiny().train()
    module.block.eval()
    onnxplain.export(module, tmp_path / "tiny.onnx", example=torch.zeros(1, 3, 30, 34))
    assert module.training
    assert module.head.training
    assert not module.block.training


@pytest.mark.parametrize("method", pytorch.PULLBACKS)
def test_every_method_agrees_on_a_users_own_module(method: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    module, path = Tiny().eval(), tmp_path / "tiny.onnx"
    onnxplain.export(module, path, example=torch.zeros(1, 3, 30, 34), method=method)
    images = np.random.default_rng(0).standard_normal((4, 3, 30, 34)).astype(np.float32)
    parity = compare(onnxplain.load(path, threads=1), module, images, np.array([0, -1, -2, 4]))
    assert all(p.relative_l2 <= 1e-5 for p in parity.values())
