"""No node leaves the GPU: what ONNX Runtime's CUDA provider takes of explain graphs.

Networks of every kind, as small as their architectures let them be, each with a few of the
methods, variants and precisions; together these meet each other (`test_every_pair_is_tried`). The
whole zoo with all of them: `python -m onnxplain.bench.zoo claims`.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models import convnext, efficientnet, mobilenetv3, resnet
from typer.testing import CliRunner

import onnxplain
from onnxplain.bench.zoo.claims import METHODS, PRECISIONS, VARIANTS
from onnxplain.cli import app
from onnxplain.errors import BackendError
from onnxplain.export.lower import FOR_GPUS
from onnxplain.runtime import fake_cuda
from onnxplain.runtime.fake_cuda.ask import Claims, claims
from onnxplain.signal.export import export_autoencoder
from onnxplain.vital.graphs.step import write_step
from onnxplain.vital.graphs.subject import read_subject

from ..signal.small import Linear, autoencoder
from .small import explain_graph, network

SIZE = 32

pytestmark = [
    pytest.mark.xdist_group("claims"),  # what they share takes long to make
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]


def mobilenet_v3() -> nn.Module:
    row = mobilenetv3.InvertedResidualConfig
    rows = [row(16, 3, 16, 16, True, "RE", 2, 1, 1.0), row(16, 5, 40, 24, True, "HS", 2, 1, 1.0)]
    return models.MobileNetV3(rows, last_channel=32)


def efficient_net() -> nn.Module:
    row = efficientnet.MBConvConfig
    rows = [row(1, 3, 1, 16, 16, 1, 1.0, 1.0), row(4, 5, 2, 16, 24, 1, 1.0, 1.0)]
    return models.EfficientNet(rows, dropout=0.0)


def conv_next() -> nn.Module:
    row = convnext.CNBlockConfig
    return models.ConvNeXt([row(16, 24, 1), row(24, None, 1)])


def vgg() -> nn.Module:
    first = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*first, nn.Flatten(), nn.Linear(8 * 16 * 16, 10))


Case = tuple[str, str, str]

NETWORKS: dict[Callable[[], nn.Module], tuple[Case, Case]] = {
    lambda: models.ResNet(resnet.Bottleneck, [1, 1, 1, 1]): (
        ("excitation", "plain", "float32"),
        ("lrp-zplus", "multi_target", "float16"),
    ),
    vgg: (("excitation", "step", "float16"), ("semantic", "live_temperature", "float32")),
    lambda: models.DenseNet(8, (2, 2), 16): (
        ("excitation", "live_temperature", "float16"),
        ("gradcam", "plain", "float32"),
    ),
    mobilenet_v3: (("semantic", "step", "float32"), ("lrp-zplus", "plain", "float16")),
    efficient_net: (("excitation", "multi_target", "float16"), ("gradient", "step", "float32")),
    lambda: models.ShuffleNetV2([1, 1, 1], [24, 32, 48, 64, 64]): (
        ("lrp-zplus", "plain", "float32"),
        ("gradcam", "multi_target", "float16"),
    ),
    conv_next: (("semantic", "multi_target", "float32"), ("gradient", "multi_target", "float16")),
    lambda: models.VisionTransformer(SIZE, 8, 2, 2, 32, 64): (
        ("semantic", "plain", "float16"),
        ("lrp-zplus", "multi_target", "float32"),
    ),
    lambda: models.SwinTransformer([4, 4], 24, [2, 1], [2, 4], [4, 4]): (
        ("gradient", "plain", "float32"),
        ("semantic", "step", "float16"),
    ),
}
CASES = list(NETWORKS.values())


def test_where_the_gpu_s_provider_does_not_start_nothing_is_claimed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime falls back to the processor, where no node leaves a GPU either."""
    onnx.save(network(), tmp_path / "x.onnx")
    (tmp_path / "numpy.py").write_text("raise SystemExit('a file of the current folder ran')")
    monkeypatch.chdir(tmp_path)
    (found,) = claims(
        [(tmp_path / "x.onnx", "float32")], {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    )
    assert isinstance(found, str)
    assert "CUDAExecutionProvider" in found


def test_every_pair_is_tried() -> None:
    """Each method with each variant that it goes with, each of both with each precision."""
    cases = list(itertools.chain(*CASES))
    assert {(method, precision) for method, _, precision in cases} == set(
        itertools.product(METHODS, PRECISIONS)
    )
    assert {(variant, precision) for _, variant, precision in cases} == set(
        itertools.product(VARIANTS, PRECISIONS)
    )


def asked(graphs: list[tuple[Path, str]], environment: dict[str, str]) -> list[Claims]:
    found = list(claims(graphs, environment))
    assert all(isinstance(claim, Claims) for claim in found), found
    return found  # type: ignore[return-value]


def written(module: nn.Module, path: Path) -> None:
    """As PyTorch's older exporter writes it, which is quick; the whole zoo is read by the newer."""
    torch.onnx.export(
        module, (torch.zeros(2, 3, SIZE, SIZE),), path, dynamo=False, opset_version=17,
        input_names=["image"], dynamic_axes={"image": {0: "batch"}},
    )  # fmt: skip


@pytest.fixture(scope="module")
def answers(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> list[Claims]:
    """Of all cases, from one process."""
    folder, graphs = tmp_path_factory.mktemp("claims"), []
    for i, (make, cases) in enumerate(NETWORKS.items()):
        torch.manual_seed(0)
        forward = folder / f"{i}.onnx"
        written(make().eval(), forward)
        for method, variant, precision in cases:
            path = folder / f"{i}.{method}.{variant}.onnx"
            options: dict[str, Any] = {} if variant == "plain" else {variant: True}
            onnxplain.export(forward, path, method=method, **options)
            graphs.append((path, precision))
    return asked(graphs, environment)


@pytest.mark.parametrize("number", range(len(NETWORKS)))
def test_a_network_stays_on_the_gpu(number: int, answers: list[Claims]) -> None:
    for claim in answers[2 * number : 2 * number + 2]:
        assert claim.whole, claim


def test_what_is_no_classifier_stays_too(environment: dict[str, str], tmp_path: Path) -> None:
    """A step of feature visualisation, and a signal study's graph."""
    forward, step, signal = (tmp_path / f"{name}.onnx" for name in ("forward", "step", "signal"))
    onnx.save(network(), forward)
    write_step(read_subject(forward, layers=["b", "c", "e"]), step)
    export_autoencoder(autoencoder("segnet-tiny", 16), signal, Linear(3, 16, 2), ("cat", "dog"))
    for claim in asked([(step, "float32"), (signal, "float32")], environment):
        assert claim.whole, claim


def test_asymmetric_pads_are_found(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(FOR_GPUS, "ConvTranspose")
    (claim,) = asked([(explain_graph(tmp_path), "float32")], environment)
    assert claim.on_processor == {"ConvTranspose": 1}
    assert claim.copies == 1  # its result is the pullback, which is the processor's anyway
    assert "runs on the processor" in str(claim.graph_refused)
    assert not claim.whole


def test_info_says_what_leaves_the_gpu(tmp_path: Path) -> None:
    def told(path: Path) -> str:
        result = CliRunner().invoke(app, ["info", str(path), "--provider", "cuda"])
        assert result.exit_code == 0
        return " ".join(result.output.replace("│", " ").split())

    assert "nodes stay on the GPU; CUDA graphs can be recorded" in told(explain_graph(tmp_path))
    source = network()
    source.graph.node[4].op_type = "Atan"
    onnx.save(source, tmp_path / "atan.onnx")
    made = onnxplain.export(tmp_path / "atan.onnx", tmp_path / "atan.explain.onnx")
    note = "1 node runs on the processor under ONNX Runtime's CUDA provider: Atan"
    assert note in made.notes
    found = told(tmp_path / "atan.explain.onnx")
    assert note in found
    assert "nodes run on the processor: 1 Atan 2 copies" in found
    assert "no CUDA graphs" in found


def test_without_a_library_of_cuda_the_stand_in_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_cuda, "_is_installed", lambda name: name != "curand")
    with pytest.raises(BackendError, match=r'libcurand is not installed: pip install "onnxplain'):
        fake_cuda.build(tmp_path)
