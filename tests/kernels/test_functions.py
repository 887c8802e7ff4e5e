"""Explain graphs that keep the fused operations as calls of functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn
from typer.testing import CliRunner

import onnxplain
from onnxplain.cli import app
from onnxplain.kernels.functions import DOMAIN

IMAGES = np.random.default_rng(0).normal(size=[2, 3, 20, 24]).astype(np.float32)


class Network(nn.Module):
    """A ReLU whose input feeds a shortcut too, a ReLU6, and two pools of different geometry."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 5)
        self.large, self.small = nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2)
        self.clip = nn.ReLU6()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        z = self.first(image)
        x = self.large(self.second(z.relu()) + z)
        return self.head(self.small(self.clip(4 * x)).mean([2, 3]))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "network.onnx"
    torch.manual_seed(0)
    torch.onnx.export(
        Network().eval(),
        (torch.zeros(2, 3, 20, 24),),
        path,
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        opset_version=20,
        verbose=False,
    )
    return path


def exported(source: Path, folder: Path, **options: Any) -> Path:
    path = folder / f"kernels-{options.get('kernels', False)}.onnx"
    onnxplain.export(source, path, **options)
    return path


def run(path: Path, targets: list[Any], **more: Any) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": IMAGES, "target": np.array(targets), **more})


def operators(path: Path) -> list[str]:
    return [node.op_type.split("_")[0] for node in onnx.load(path).graph.node if node.domain]


def standard_operators(path: Path) -> list[str]:
    return sorted(node.op_type for node in onnx.load(path).graph.node if not node.domain)


@pytest.mark.parametrize(
    ("options", "targets", "more"),
    [
        ({}, [1, -1], {}),
        ({"multi_target": True}, [[1, -1, 2], [0, -2, 4]], {}),
        ({"live_temperature": True}, [1, -1], {"temperature": np.array(0.7, np.float32)}),
    ],
    ids=["plain", "several targets", "live temperature"],
)
@pytest.mark.parametrize("method", ["excitation", "semantic"])
def test_the_explanation_is_the_one_without_kernels(
    method: str, options: Any, targets: Any, more: Any, source: Path, tmp_path: Path
):
    plain = exported(source, tmp_path, method=method, **options)
    kept = exported(source, tmp_path, method=method, kernels=True, **options)
    for found, expected in zip(
        run(kept, targets, **more), run(plain, targets, **more), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


def test_by_default_there_are_standard_operators_alone(source: Path, tmp_path: Path):
    path = exported(source, tmp_path)
    assert operators(path) == []
    assert not onnx.load(path).functions


def test_each_rectifier_has_a_gate_and_each_pool_its_gradient(source: Path, tmp_path: Path):
    found = operators(exported(source, tmp_path, kernels=True))
    assert sorted(found) == ["SoftGate", "SoftGate", "SoftMaxPoolGrad", "SoftMaxPoolGrad"]


def test_what_is_not_a_call_is_lowered_as_without_them(tmp_path: Path):
    layers = [layer for _ in range(6) for layer in (nn.Conv2d(3, 3, 3, padding=1), nn.ReLU())]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    found = []
    for kernels in (False, True):
        path = tmp_path / f"{kernels}.onnx"
        onnxplain.export(network, path, example=torch.zeros(1, 3, 8, 8), kernels=kernels)
        found.append(standard_operators(path))
    plain, kept = found
    assert kept.count("Conv") == plain.count("Conv") == 12
    assert "ConvTranspose" not in kept


def test_several_targets_compute_each_gate_and_softmax_once(source: Path, tmp_path: Path):
    found = operators(exported(source, tmp_path, kernels=True, multi_target=True))
    assert sorted(found) == ["SoftGate", "SoftGate", "SoftMaxPoolGrad", "SoftMaxPoolGrad"]


def test_semantic_pullback_has_functions_of_its_own(source: Path, tmp_path: Path):
    found = operators(exported(source, tmp_path, kernels=True, method="semantic"))
    assert "NormalGate" in found
    assert "WeightedPoolGrad" in found
    assert "SoftGate" not in found


def test_a_pool_says_its_geometry_and_every_geometry_has_its_own_body(source: Path, tmp_path: Path):
    """Evaluators that know no overloads still take the right body."""
    path = exported(source, tmp_path, kernels=True)
    model = onnx.load(path)
    pools = {
        node.op_type: {a.name: list(a.ints) for a in node.attribute}
        for node in model.graph.node
        if node.op_type.startswith("SoftMaxPoolGrad")
    }
    assert pools["SoftMaxPoolGrad_2"] == {
        "kernel_shape": [3, 3],
        "strides": [2, 2],
        "dilations": [1, 1],
        "pads": [1, 1, 0, 0],  # the last row and column of padding are in no window
    }
    assert len(pools) == len([f for f in model.functions if f.name.startswith("SoftMax")]) == 2
    assert {f.domain for f in model.functions} == {DOMAIN}
    feeds = {"image": IMAGES, "target": np.array([1, -1])}
    for found, expected in zip(
        ReferenceEvaluator(model).run(None, feeds), run(path, [1, -1]), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_command_line_keeps_kernels_too(source: Path, tmp_path: Path):
    path = tmp_path / "out.onnx"
    done = CliRunner().invoke(app, ["export", str(source), "-o", str(path), "--kernels"])
    assert done.exit_code == 0, done.output
    assert "SoftGate" in operators(path)


def test_padding_is_told_for_every_axis(source: Path, tmp_path: Path):
    """ONNX Runtime's WebGPU provider (1.30) cannot open a graph with a Pad that names its axes."""
    graph = onnx.load(exported(source, tmp_path)).graph
    pads = [node for node in graph.node if node.op_type == "Pad"]
    assert pads
    assert all(len(node.input) < 4 for node in pads)
