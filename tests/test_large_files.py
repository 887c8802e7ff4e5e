"""Weights beyond what one protocol buffer holds go to a file beside the graph."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from typer.testing import CliRunner

import onnxplain
from onnxplain.cli.app import app
from onnxplain.errors import InputError, SourceError
from onnxplain.export.large import written_large
from onnxplain.files import size_on_disk

from .export.graphs import head, images, node, write

X = images(2, 3, 8, 8)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    nodes = [node("Conv", ["x", "K"], ["c"]), node("Relu", ["c"], ["h"])]
    tail, weight = head("h", 8 * 36)
    return write(tmp_path / "source.onnx", [*nodes, *tail], {"K": images(8, 3, 3, 3)} | weight)


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxplain.export.large.SINGLE_FILE", 1000)


@pytest.fixture
def one_file(source: Path, tmp_path: Path) -> Path:
    onnxplain.export(source, tmp_path / "one.onnx")
    return tmp_path / "one.onnx"


def test_a_large_graph_is_two_files_that_explain_as_one(
    one_file: Path, source: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("small_limit")
    folder = tmp_path / "out"
    folder.mkdir()
    onnxplain.export(source, folder / "two.onnx")
    assert sorted(p.name for p in folder.iterdir()) == ["two.onnx", "two.onnx.data"]
    assert size_on_disk(folder / "two.onnx") >= one_file.stat().st_size - 1000
    onnx.checker.check_model(folder / "two.onnx", full_check=True)
    explanation = onnxplain.load(folder / "two.onnx")(X)
    expected = onnxplain.load(one_file)(X)
    np.testing.assert_array_equal(explanation.pullback, expected.pullback)

    moved = tmp_path / "moved"
    folder.rename(moved)  # the graph finds its weights by their name, wherever the two are
    np.testing.assert_array_equal(onnxplain.load(moved / "two.onnx")(X).logits, expected.logits)


def test_info_shows_the_size_of_both_files(small_limit: None, source: Path, tmp_path: Path) -> None:
    path = tmp_path / "two.onnx"
    onnxplain.export(source, path)
    (tmp_path / "two.onnx.data").open("ab").write(bytes(3 * 2**20))
    shown = CliRunner().invoke(app, ["info", str(path)]).output
    assert "3.0 MiB" in shown


def test_an_existing_pair_is_replaced(small_limit: None, source: Path, tmp_path: Path) -> None:
    path = tmp_path / "two.onnx"
    onnxplain.export(source, path, method="gradient")
    onnxplain.export(source, path, method="guided")
    assert onnxplain.load(path).metadata.method == "guided"
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("name", ["x.onnx", "x.onnx.data"])
@pytest.mark.parametrize("kind", ["a link", "a pipe", "a folder"])
def test_what_is_no_file_is_refused(kind: str, name: str, source: Path, tmp_path: Path) -> None:
    """Whoever opened the graph by a link would look for the weights beside that."""
    place = tmp_path / name
    {
        "a link": lambda: place.symlink_to("two.onnx"),
        "a pipe": lambda: os.mkfifo(place),
        "a folder": place.mkdir,
    }[kind]()
    with (
        pytest.raises(InputError, match=f"it is {kind}"),
        written_large(ir.load(source), tmp_path / "x.onnx"),
    ):
        raise AssertionError("it was begun")
    assert not place.is_file()


def test_a_failed_write_keeps_the_old_pair(
    small_limit: None, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, data = tmp_path / "two.onnx", tmp_path / "two.onnx.data"
    onnxplain.export(source, path, method="gradient")
    before = path.read_bytes(), data.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    def invalid(*_: object, **__: object) -> None:
        raise ValueError("not valid")

    for name, raised, error in (
        ("onnx_ir.save", full, InputError),
        ("onnx.checker.check_model", invalid, SourceError),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(name, raised)
            with pytest.raises(error):
                onnxplain.export(source, path, method="guided")
        assert (path.read_bytes(), data.read_bytes()) == before
        assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("opset", [13, 20])
def test_weights_of_a_source_with_a_data_file_are_taken_from_there(
    opset: int, small_limit: None, tmp_path: Path
) -> None:
    """Large ones are not read before they are written."""
    tail, weight = head("x", 3 * 32 * 32, 200)
    path = write(tmp_path / "s.onnx", tail, weight, ("N", 3, 32, 32), opset=opset)
    onnx.save_model(
        onnx.load(path), path, save_as_external_data=True, location="s.data", size_threshold=0
    )
    onnxplain.export(path, tmp_path / "two.onnx", method="gradient")
    (tmp_path / "s.data").unlink()
    x = images(1, 3, 32, 32)
    explanation = onnxplain.load(tmp_path / "two.onnx")(x, 7)
    expected = weight["W"][:, 7].reshape(1, 3, 32, 32)
    np.testing.assert_allclose(explanation.pullback, expected, rtol=1e-6)
    np.testing.assert_allclose(explanation.logits, x.reshape(1, -1) @ weight["W"], rtol=1e-4)


def test_a_data_file_that_is_cut_short_is_told(tmp_path: Path) -> None:
    tail, weight = head("x", 192)
    path = write(tmp_path / "s.onnx", tail, weight)
    onnx.save_model(
        onnx.load(path), path, save_as_external_data=True, location="s.data", size_threshold=0
    )
    data = tmp_path / "s.data"
    data.write_bytes(data.read_bytes()[:-5])
    with pytest.raises(SourceError, match=r"external data are missing \(s.data is cut short"):
        onnxplain.export(path, tmp_path / "out.onnx")


@pytest.mark.sweep
def test_a_network_of_more_than_two_gigabytes(tmp_path: Path) -> None:
    """One matrix of 2.2 GB, of which each row is one number repeated."""
    classes, features = 45_000, 3 * 64 * 64
    rng = np.random.default_rng(0)
    numbers = rng.standard_normal(classes).astype(np.float32)
    with (tmp_path / "huge.data").open("wb") as file:
        for chunk in np.array_split(numbers, 50):
            np.broadcast_to(chunk[:, None], (len(chunk), features)).tofile(file)
    weight = TensorProto(
        name="W",
        data_type=TensorProto.FLOAT,
        dims=[classes, features],
        data_location=TensorProto.EXTERNAL,
    )
    weight.external_data.add(key="location", value="huge.data")
    graph = helper.make_graph(
        [node("Flatten", ["x"], ["f"]), node("Gemm", ["f", "W"], ["y"], transB=1)],
        "huge",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 64, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", classes])],
        [weight],
    )
    opsets = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "huge.onnx")
    onnxplain.export(tmp_path / "huge.onnx", tmp_path / "out.onnx", method="gradient")
    assert (tmp_path / "out.onnx").stat().st_size < 10**6
    assert size_on_disk(tmp_path / "out.onnx") > 2**31
    (tmp_path / "huge.data").unlink()
    x = images(1, 3, 64, 64)
    explanation = onnxplain.load(tmp_path / "out.onnx", threads=1)(x, 44_000)
    np.testing.assert_allclose(explanation.logits[0], numbers * x.sum(), rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(explanation.pullback, numbers[44_000], rtol=1e-6)
