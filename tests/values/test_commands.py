"""The command line with files of other values than an image."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from onnxplain.cli.app import app

from .networks import WORDS, written

IDS, MASK = np.array([[0, 3, 1], [2, 2, 2]]), np.ones((2, 3), np.float32)


def run(*arguments: object, status: int = 0) -> str:
    found = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert found.exit_code == status, found.output
    return found.output


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("words")
    source, graph = written(WORDS, folder / "words.onnx"), folder / "words.explain.onnx"
    run(
        *("export", source, "-o", graph, "--method", "gradient"),
        "--wrt",
        "embedded",
        "--wrt",
        "mask",
    )
    return graph


def test_export_asks_what_to_explain_by(tmp_path: Path) -> None:
    source = written(WORDS, tmp_path / "words.onnx")
    said = " ".join(run("export", source, status=3).split())
    assert "--wrt" in said
    assert "embedded (the embedding of words)" in said


def test_info_says_by_what_it_explains(graph: Path) -> None:
    said = run("info", graph)
    for line in ("words int64 [N, T]: tokens", "pullback.mask [?, ?]: by mask", "tokens of words"):
        assert line in said


def test_arrays_are_explained_from_npz(graph: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", words=IDS, mask=MASK)
    run("explain", graph, tmp_path / "two.npz", "-o", tmp_path / "why", "-t", "1")
    assert (tmp_path / "why" / "two.png").stat().st_size > 1000
    pullbacks = np.load(tmp_path / "why" / "two.pullbacks.npz")
    assert pullbacks["embedded"].shape == (2, 3, 2)
    record = json.loads((tmp_path / "why" / "predictions.jsonl").read_text())
    assert [sample[0]["index"] for sample in record["samples"]] == [1, 1]


def test_what_cannot_be_read_is_reported(graph: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "less.npz", words=IDS)
    np.save(tmp_path / "one.npy", IDS)
    files = [tmp_path / name for name in ("less.npz", "one.npy", "none.npz")]
    said = " ".join(run("explain", graph, *files, "-o", tmp_path / "why", status=1).split())
    for part in ("the input 'mask'", "no names", "numpy.savez"):
        assert part in said
