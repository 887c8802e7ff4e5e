"""Whether a graph compiles, found out without risk."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import onnxplain
from onnxplain.bench import engines
from onnxplain.bench.engines import accepts

pytest.importorskip("tensorrt_rtx")


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    path = tmp_path_factory.mktemp("engines") / "net.explain.onnx"
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 3)
    )
    onnxplain.export(network.eval(), path, example=torch.zeros(2, 3, 8, 8), method="gradient")
    return path


def test_a_graph_that_compiles_is_accepted_and_nothing_is_kept(
    graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert accepts(graph) is None
    assert not (tmp_path / "onnxplain").exists()


def test_a_refusal_is_the_reason(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_text("no graph")
    assert "is not an ONNX file" in (accepts(tmp_path / "x.onnx") or "")


def test_a_build_without_end_is_ended(graph: Path) -> None:
    assert accepts(graph, seconds=0.01) == "it was still compiling after 0.01 s"


def test_a_crash_of_the_compiler_is_a_reason(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crash = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    real = engines.subprocess.run

    def crashing(command: list[str], **options: object) -> object:
        return real([sys.executable, "-c", crash], **options)

    monkeypatch.setattr(engines.subprocess, "run", crashing)
    assert accepts(graph) == "the compiler crashed (SIGSEGV)"
