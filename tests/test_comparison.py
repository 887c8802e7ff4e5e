"""An export is compared with its source before it takes its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import onnxplain
from onnxplain.errors import SourceError
from onnxplain.export.large import SINGLE_FILE
from onnxplain.reference import logits, outputs
from onnxplain.reference.parity import Parity

from .export.graphs import head, node, write

EXAMPLE = torch.zeros(2, 3, 8, 8)

pytestmark = pytest.mark.usefixtures("compared")


def network(*last: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.9), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(144, 5), *last)


class Otherwise(nn.Module):
    """Something else, once it is exported."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 1.01 if torch.compiler.is_exporting() else x


@pytest.fixture
def onnx_file(tmp_path: Path) -> Path:
    tail, weights = head("z", 3 * 16)
    return write(
        tmp_path / "net.onnx", [node("Relu", ["x"], ["z"]), *tail], weights, ("N", 3, 4, 4)
    )


@pytest.fixture
def parities(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The relative errors that are found."""
    found: list[float] = []
    compared = Parity.of

    def noted(a: np.ndarray, b: np.ndarray) -> Parity:
        parity = compared(a, b)
        found.append(parity.relative_l2)
        return parity

    monkeypatch.setattr(Parity, "of", noted)
    return found


@pytest.mark.parametrize("large", [False, True])
def test_what_differs_leaves_the_old_file_in_place(
    large: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, wrong = tmp_path / "e.onnx", network(Otherwise())
    path.write_bytes(b"old")
    monkeypatch.setattr("onnxplain.export.large.SINGLE_FILE", 0 if large else SINGLE_FILE)
    with pytest.raises(SourceError, match=r"e.onnx' is not right: on noise, its logits differ"):
        onnxplain.export(wrong, path, example=EXAMPLE)
    assert path.read_bytes() == b"old"
    assert [*tmp_path.iterdir()] == [path]
    onnxplain.export(wrong, path, example=EXAMPLE, check=False)
    assert path.read_bytes() != b"old"


@pytest.mark.parametrize(
    "options", [{"unroll": 2}, {"step": True, "live_temperature": True, "live": ["relu"]}], ids=str
)
def test_every_kind_of_graph_is_compared(
    options: dict[str, Any], onnx_file: Path, parities: list[float]
) -> None:
    metadata = onnxplain.export(onnx_file, onnx_file.with_name("e.onnx"), **options)
    assert not any("not checked" in note for note in metadata.notes)
    assert min(parities) < 1e-6


def test_every_kind_of_source_of_pytorchs_is_compared_and_left_as_it_was(
    tmp_path: Path, parities: list[float]
) -> None:
    module, half = network(nn.Softmax(1)).train(), network().half()
    script = torch.jit.script(module)
    program = torch.export.export(
        network().eval(), (EXAMPLE,), dynamic_shapes=({0: torch.export.Dim("n")},)
    )
    for source, options in (
        (module, {"example": EXAMPLE}),
        (half, {"example": EXAMPLE.half()}),
        (script, {"example": EXAMPLE}),
        (program, {}),
    ):
        parities.clear()
        metadata = onnxplain.export(source, tmp_path / "e.onnx", **options)
        assert not any("not checked" in note for note in metadata.notes)
        assert min(parities) < (1e-2 if source is half else 1e-6)
    assert all(part.training for part in (*module.modules(), *script.modules()))


def test_what_cannot_be_compared_is_noted(
    tmp_path: Path, onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tail, weights = head("z", 3 * 16)
    unbounded = [node("Abs", ["x"], ["a"]), node("Neg", ["a"], ["n"]), node("Log", ["n"], ["z"])]
    source = write(tmp_path / "log.onnx", [*unbounded, *tail], weights, ("N", 3, 4, 4))
    metadata = onnxplain.export(source, tmp_path / "e.onnx", method="gradient")
    assert "not checked: the source itself makes no finite numbers of noise" in metadata.notes
    random = np.random.default_rng(0)
    monkeypatch.setattr(logits, "scores_of_onnx", lambda *_: [random.normal(size=[2, 4])])
    metadata = onnxplain.export(onnx_file, tmp_path / "e.onnx")
    assert "not checked: the source does not answer twice the same" in metadata.notes


def test_what_runs_in_neither_is_noted(tmp_path: Path) -> None:
    double, failing = network().double(), network()
    failing.register_forward_pre_hook(_refuse)
    metadata = onnxplain.export(double, tmp_path / "e.onnx", example=EXAMPLE.double())
    assert any("not checked: ONNX Runtime does not run it" in note for note in metadata.notes)
    metadata = onnxplain.export(failing, tmp_path / "e.onnx", example=EXAMPLE)
    assert "not checked: PyTorch does not run the source on noise: never" in metadata.notes


def _refuse(module: nn.Module, given: Any) -> None:
    if not torch.compiler.is_exporting():
        raise RuntimeError("never")


def test_an_onnx_file_is_compared_from_python_too(
    onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, stages = onnx_file.with_name("e.onnx"), []
    onnxplain.export(onnx_file, path, progress=stages.append)
    assert tuple(stages) == onnxplain.export.STAGES
    monkeypatch.setattr(logits, "scores_of_onnx", lambda *_: [np.ones([2, 4])])
    with pytest.raises(SourceError, match="is not right"):
        onnxplain.export(onnx_file, path)


def test_a_declared_open_batch_that_is_fixed_inside_is_told_with_what_to_do(
    tmp_path: Path, parities: list[float]
) -> None:
    weights = {"W": np.ones([48, 4], np.float32), "one": np.array([1, 48])}
    rows = [node("Squeeze", ["x", "first"], ["s"]), node("Reshape", ["s", "one"], ["r"])]
    tail = node("MatMul", ["r", "W"], ["y"])
    weights["first"] = np.array([0])
    source = write(tmp_path / "net.onnx", [*rows, tail], weights, ("N", 3, 4, 4))
    metadata = onnxplain.export(source, tmp_path / "e.onnx", method="gradient")
    assert logits.ONE_ALONE in metadata.notes
    assert min(parities) < 1e-6
    found = onnxplain.load(tmp_path / "e.onnx", "cpu")(np.ones([1, 3, 4, 4], np.float32))
    np.testing.assert_allclose(found.pullback, 1.0)


@pytest.mark.parametrize(("error", "refused"), [(5e-7, False), (5e-6, True)])
def test_probabilities_near_zero_are_as_wrong_as_near_one(
    error: float, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them are 8e-7, which ONNX Runtime's sigmoid knows to 1.5e-7."""
    weights = {"A": np.zeros([1, 3, 1, 1], np.float32), "b": np.float32([-14])}
    nodes = [node("Conv", ["x", "A", "b"], ["c"]), node("Sigmoid", ["c"], ["y"])]
    path, run = write(tmp_path / "net.onnx", nodes, weights), outputs.run_forward

    def off(*given: Any) -> dict[str, Any]:
        return {name: y + np.float32(error) for name, y in run(*given).items()}

    monkeypatch.setattr(outputs, "run_forward", off)
    if refused:
        with pytest.raises(SourceError, match="its output 'y' differs"):
            onnxplain.export(path, tmp_path / "e.onnx", method="gradient")
    else:
        onnxplain.export(path, tmp_path / "e.onnx", method="gradient")
