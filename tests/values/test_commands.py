"""The command line with files of other values than an image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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


@pytest.mark.parametrize(("option", "value"), [("--style", "heatmap"), ("--batch", "2")])
def test_options_of_pictures_are_refused(
    option: str, value: str, graph: Path, tmp_path: Path
) -> None:
    np.savez(tmp_path / "x.npz", words=IDS, mask=MASK)
    found = CliRunner().invoke(app, ["explain", str(graph), str(tmp_path / "x.npz"), option, value])
    assert found.exit_code
    assert f"{option} is of images" in " ".join(found.output.split())


def test_what_cannot_be_read_is_reported(graph: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "less.npz", words=IDS)
    np.save(tmp_path / "one.npy", IDS)
    (tmp_path / "photo.npz").write_bytes(b"\x89PNG\r\n")
    files = [tmp_path / name for name in ("less.npz", "one.npy", "none.npz", "photo.npz")]
    said = " ".join(run("explain", graph, *files, "-o", tmp_path / "why", status=1).split())
    for part in ("the input 'mask'", "no names", "numpy.savez", "numpy.savez write no such file"):
        assert part in said
    assert "pickle" not in said


def records(folder: Path) -> list[dict[str, Any]]:
    """The lines of predictions.jsonl, none with what JSON does not have."""
    lines = (folder / "predictions.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=pytest.fail) for line in lines]


def test_files_of_one_name_are_written_beside_each_other(graph: Path, tmp_path: Path) -> None:
    given = [tmp_path / "a" / "x.npz", tmp_path / "b" / "x.npz"]
    for samples, path in enumerate(given, start=1):
        path.parent.mkdir()
        np.savez(path, words=IDS[:samples], mask=MASK[:samples])
    why = tmp_path / "why"
    run("explain", graph, *given, "-o", why)
    assert [Path(one["picture"]).name for one in records(why)] == ["x.png", "x-2.png"]
    pullbacks = [np.load(why / f"{stem}.pullbacks.npz")["mask"] for stem in ("x", "x-2")]
    assert [len(pullback) for pullback in pullbacks] == [1, 2]


def test_one_bad_file_leaves_the_others(graph: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "good.npz", words=IDS, mask=MASK)
    np.savez(tmp_path / "beyond.npz", words=IDS + 9, mask=MASK)
    np.savez(tmp_path / "scalar.npz", words=1, mask=MASK)
    files = [tmp_path / f"{name}.npz" for name in ("good", "beyond", "scalar", "good")]
    run("explain", graph, *files, "-o", tmp_path / "why", status=1)
    kept = records(tmp_path / "why")
    assert ["samples" in one for one in kept] == [True, False, False, True]
    assert "the input 'words'" in kept[2]["error"]


def test_what_is_not_finite_is_null(graph: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "great.npz", words=IDS, mask=np.float32(3e38) * MASK)
    run("explain", graph, tmp_path / "great.npz", "--allow-nonfinite", "-o", tmp_path / "why")
    (record,) = records(tmp_path / "why")
    assert record["samples"][0][0]["probability"] is None


def test_each_sample_has_all_targets(tmp_path: Path) -> None:
    """Whichever array comes first in the file: here one without a batch."""
    text = WORDS.replace("float[N, T] mask", "float[N, T] mask, float[2] scale")
    text = text.replace("positive = Relu (masked)", "sc = Mul (masked, scale) positive = Relu (sc)")
    source = written(text, tmp_path / "scaled.onnx")
    several = tmp_path / "several.onnx"
    run("export", source, "-o", several, "--wrt", "mask", "--multi-target", "--method", "gradient")
    ids, mask = np.repeat(IDS, 2, 0)[:3], np.ones((3, 3), np.float32)
    np.savez(tmp_path / "x.npz", scale=np.ones(2, np.float32), words=ids, mask=mask)
    run("explain", several, tmp_path / "x.npz", "-t", "0", "-t", "1", "-o", tmp_path / "why")
    (record,) = records(tmp_path / "why")
    assert [[one["index"] for one in sample] for sample in record["samples"]] == [[0, 1]] * 3
