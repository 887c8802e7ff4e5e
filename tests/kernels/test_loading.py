"""Graphs that call fused operations: who has the library uses it, who has not runs the bodies."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import onnxplain
from onnxplain.cli import app
from onnxplain.runtime.onnx_file import kernel_calls
from onnxplain.runtime.sessions.onnx_runtime.placement import placement

pytestmark = pytest.mark.xdist_group("kernels")

IMAGES = np.random.default_rng(0).normal(size=[2, 3, 20, 24]).astype(np.float32)


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(8, 8, 3)]
    tail = [nn.ReLU6(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)]
    return nn.Sequential(*layers, *tail).eval()


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("graphs")


def exported(folder: Path, kernels: bool, **options: Any) -> Path:
    path = folder / f"{kernels}-{'-'.join(map(str, options.items()))}.onnx"
    if not path.exists():
        example = torch.zeros(1, 3, 20, 24)
        onnxplain.export(network(), path, example=example, kernels=kernels, **options)
    return path


@pytest.fixture
def with_library(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delitem(sys.modules, "onnxplain_kernels", raising=False)
    monkeypatch.syspath_prepend(installed)
    yield
    sys.modules.pop("onnxplain_kernels", None)


@pytest.fixture
def without_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxplain_kernels", None)


def operators(path: Path, precision: str = "float32") -> dict[str, int]:
    """Those that ONNX Runtime is left with."""
    return dict(placement(path, precision, ["CPUExecutionProvider"]).nodes)


CALLS = {"SoftGate": 2, "SoftMaxPoolGrad_1": 1, "SoftMaxPoolGrad_2": 1}


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_the_library_runs_what_the_file_calls(precision: str, graphs: Path, with_library: None):
    found = operators(exported(graphs, kernels=True), precision)
    assert CALLS.items() <= found.items()


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_without_the_library_the_bodies_run(precision: str, graphs: Path, without_library: None):
    found = operators(exported(graphs, kernels=True), precision)
    assert found.keys().isdisjoint(CALLS)
    assert "Sigmoid" in found


def test_a_file_without_calls_has_no_use_for_it(graphs: Path, with_library: None):
    path = exported(graphs, kernels=False)
    assert not kernel_calls(path)
    assert operators(path).keys().isdisjoint(CALLS)


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize(
    ("options", "targets", "more"),
    [
        ({}, [1, -1], {}),
        ({"method": "semantic"}, [1, -1], {}),
        ({"multi_target": True}, [[1, -1, 2], [0, -2, 4]], {}),
        ({"live_temperature": True}, [1, -1], {"temperature": 0.7}),
        ({"step": True}, [1, -1], {}),
    ],
    ids=["plain", "semantic", "several targets", "live temperature", "step"],
)
def test_the_explanation_is_the_one_of_the_bodies(
    options: Any, targets: Any, more: Any, precision: str, graphs: Path, with_library: None
):
    path = exported(graphs, kernels=True, **options)
    plain = exported(graphs, kernels=False, **options)
    fused = onnxplain.load(path, "cpu", precision)(IMAGES, targets, **more)
    wanted = onnxplain.load(plain, "cpu")(IMAGES, targets, **more)
    near = 1e-5 if precision == "float32" else 2e-2
    for found, expected in ((fused.logits, wanted.logits), (fused.pullback, wanted.pullback)):
        np.testing.assert_allclose(found, expected, rtol=near, atol=near * np.abs(expected).max())


def test_plain_onnx_runtime_needs_one_line(graphs: Path, with_library: None):
    import onnxplain_kernels

    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(onnxplain_kernels.library())
    path = exported(graphs, kernels=True)
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    _, found = session.run(None, {"image": IMAGES, "target": np.array([1, -1])})
    wanted = onnxplain.load(exported(graphs, kernels=False), "cpu")(IMAGES, [1, -1]).pullback
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def said(*command: str | Path) -> str:
    """What a command prints, without a table's lines and line breaks."""
    done = CliRunner().invoke(app, [*map(str, command)])
    assert done.exit_code == 0, done.output
    return " ".join(done.output.replace("│", " ").split())


def test_the_command_line_says_who_runs_the_calls(graphs: Path, with_library: None):
    compiled = "with CUDA" if shutil.which("nvcc") else "without CUDA"
    output = said("info", exported(graphs, kernels=True))
    assert "2 SoftGate, 2 SoftMaxPoolGrad" in output
    assert f"run by onnxplain-kernels 0.1.0, {compiled}" in output
    assert "none (export --kernels)" in said("info", exported(graphs, kernels=False))
    assert f"onnxplain-kernels 0.1.0, {compiled}" in said("doctor")


def test_the_command_line_says_that_the_library_is_missing(graphs: Path, without_library: None):
    output = said("info", exported(graphs, kernels=True))
    assert "standard operators; onnxplain-kernels is not installed: pip install" in output
    assert "onnxplain-kernels is not installed: pip install ./kernels" in said("doctor")
