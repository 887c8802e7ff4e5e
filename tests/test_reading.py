"""Files come in through one door: regular ones alone, where they may be, in bounded time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxplain.batch.listing import Columns, list_items
from onnxplain.batch.reading import loads
from onnxplain.batch.tables import Tables
from onnxplain.errors import BackendError, InputError, SourceError
from onnxplain.export import export
from onnxplain.export.sources.source import load_checkpoint
from onnxplain.reading import NotAFileError, beside, matching, opened, text, unreadable
from onnxplain.runtime import find_images, load_image
from onnxplain.runtime.inputs.stored import stored
from onnxplain.runtime.onnx_file import digest, operators, read_metadata, weights_beside
from onnxplain.runtime.sessions import open_session
from onnxplain.signal.measurement import Measurement
from onnxplain.signal.settings import Settings

FIFO = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
SECRET = np.array([3.0, 1.0, 4.0, 1.0], np.float32)


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """A pipe that nobody writes to, with the name of a picture."""
    path = tmp_path / "pipe.png"
    os.mkfifo(path)
    return path


class TestOpening:
    def test_a_file_is_read(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("ä", "utf-8")
        assert text(tmp_path / "a") == "ä"

    def test_a_folder_is_none(self, tmp_path: Path) -> None:
        with pytest.raises(NotAFileError, match="a folder, not a file"):
            opened(tmp_path)

    def test_a_device_is_not_read(self) -> None:
        with pytest.raises(NotAFileError, match="a device, not a file"):
            opened("/dev/zero")

    @FIFO
    def test_a_pipe_is_not_waited_for(self, pipe: Path) -> None:
        with pytest.raises(NotAFileError, match="a pipe, not a file"):
            opened(pipe)

    def test_a_file_may_be_too_large(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(bytes(11))
        with pytest.raises(NotAFileError, match="11 bytes, of at most 10"):
            opened(tmp_path / "a", 10)

    def test_why_one_cannot_be_read_is_told(self, pipe: Path, tmp_path: Path) -> None:
        said = unreadable(pipe)
        assert said == f"'{pipe}' cannot be read: it is a pipe, not a file"
        assert unreadable(tmp_path / "a") == f"no such file: '{tmp_path / 'a'}'"
        assert str(unreadable("zero\0byte")).startswith("no such file")
        (tmp_path / "a").touch()
        assert unreadable(tmp_path / "a") is None

    def test_an_export_says_so(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "a.onnx")
        with pytest.raises(SourceError, match="a pipe, not a file"):
            export(tmp_path / "a.onnx", tmp_path / "out.onnx")


def with_weights_at(path: Path, location: str, in_constant: bool = False, **place: object) -> Path:
    """A classifier whose bias of four numbers lies in another file, at that place of it."""
    tensor = TensorProto(name="b", data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    for key, value in {"length": 16, **place}.items():
        tensor.external_data.add(key=key, value=str(value))
    constant = [helper.make_node("Constant", [], ["b"], value=tensor)] if in_constant else []
    weight = numpy_helper.from_array(np.ones((3, 4), np.float32), "w")
    axes = numpy_helper.from_array(np.array([2, 3]), "axes")
    graph = helper.make_graph(
        [
            *constant,
            helper.make_node("ReduceMean", ["x", "axes"], ["m"], keepdims=0),
            helper.make_node("Gemm", ["m", "w", "b"], ["y"]),
        ],
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [weight, axes, *([] if in_constant else [tensor])],
    )
    opset = [helper.make_opsetid("", 20)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


def outside(folder: Path, kind: str) -> str:
    """The location of a file that is not the model's, named in that way."""
    secret = folder.parent / "secret"
    secret.write_bytes(SECRET.tobytes())
    if kind == "a link":
        (folder / "link").symlink_to(secret)
        return "link"
    if kind == "a link to a folder":
        (folder / "up").symlink_to(folder.parent)
        return "up/secret"
    return {"..": "../secret", "absolute": str(secret)}[kind]


class TestWeightsBesideAModel:
    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """The model's, in which the command is called, as its name alone is given."""
        folder = tmp_path / "model"
        folder.mkdir()
        monkeypatch.chdir(folder)
        return folder

    @pytest.mark.parametrize("in_constant", [False, True], ids=["weight", "constant"])
    @pytest.mark.parametrize("kind", ["..", "absolute", "a link", "a link to a folder"])
    @pytest.mark.parametrize("relative", [False, True], ids=["absolute path", "name alone"])
    def test_those_outside_its_folder_are_not_exported(
        self, kind: str, in_constant: bool, relative: bool, folder: Path
    ) -> None:
        path = with_weights_at(folder / "m.onnx", outside(folder, kind), in_constant)
        with pytest.raises(SourceError, match="lies outside the folder"):
            export(Path("m.onnx") if relative else path, folder / "out.onnx", method="gradient")
        assert not (folder / "out.onnx").exists()

    @pytest.mark.parametrize("in_constant", [False, True], ids=["weight", "constant"])
    def test_they_are_not_run(self, in_constant: bool, folder: Path) -> None:
        path = with_weights_at(folder / "m.onnx", outside(folder, "a link"), in_constant)
        with pytest.raises(BackendError, match="lies outside the folder"):
            open_session(path, "openvino")
        with pytest.raises(BackendError, match="lies outside the folder"):
            digest(path)

    @pytest.mark.parametrize(
        ("key", "value", "said"),
        [
            ("offset", -100, "offset must be non-negative, got -100"),
            ("length", -5, "length must be non-negative, got -5"),
            ("offset", "x", "invalid literal"),
            ("offset", 2**70, "b is cut short"),
        ],
    )
    def test_a_place_that_is_none_is_told(
        self, key: str, value: object, said: str, folder: Path
    ) -> None:
        """The library's own account of where it was fails, of a tensor in another file."""
        (folder / "b").write_bytes(SECRET.tobytes())
        path = with_weights_at(folder / "m.onnx", "b", **{key: value})
        with pytest.raises(SourceError, match=said):
            export(path, folder / "out.onnx")

    def test_they_may_be_in_a_folder_below(self, folder: Path) -> None:
        (folder / "data").mkdir()
        (folder / "data" / "b").write_bytes(SECRET.tobytes())
        (folder / "b").symlink_to("data/b")
        with_weights_at(folder / "m.onnx", "b")
        export("m.onnx", folder / "out.onnx", method="gradient")
        assert weights_beside(Path("m.onnx")) == [folder / "data" / "b"]
        given = onnx.load(folder / "out.onnx").graph.initializer
        assert any(SECRET.tobytes() == tensor.raw_data for tensor in given)

    @pytest.mark.parametrize("read", [digest, weights_beside])
    @pytest.mark.parametrize("location", ["/dev/zero", "pipe.png", "sub\0"])
    @FIFO
    def test_no_device_and_no_pipe_is_read(
        self, read: Callable[[Path], object], location: str, folder: Path
    ) -> None:
        os.mkfifo(folder / "pipe.png")
        path = with_weights_at(folder / "m.onnx", location)
        with pytest.raises(BackendError, match="cannot be read"):
            read(path)
        with pytest.raises(SourceError, match="not a readable ONNX model"):
            export(path, folder / "out.onnx")

    def test_a_neighbour_of_like_name_is_outside(self, tmp_path: Path) -> None:
        (tmp_path / "models").mkdir()
        (tmp_path / "models-secret").touch()
        with pytest.raises(PermissionError):
            beside(tmp_path / "models" / "m.onnx", "../models-secret")


class TestTheReaderOfONNX:
    """`onnxplain.runtime.onnx_file`: what it does is bounded by what networks have."""

    @pytest.mark.parametrize(
        "content",
        {
            "a number without end": b"\xff" * 3_000_000,
            "numbers of no field": b"\x08\x00" * 5_000_000,
            "a length without end": b"\x3a" + b"\xff" * 9 + b"\x01",
        }.items(),
        ids=lambda item: item[0],
    )
    def test_nonsense_ends_soon(
        self, content: tuple[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("onnxplain.runtime.onnx_file._FIELDS", 10_000)
        path = tmp_path / "m.onnx"
        path.write_bytes(content[1])
        begun = time.process_time()
        with pytest.raises(BackendError, match="is not an ONNX file"):
            read_metadata(path)
        assert time.process_time() - begun < 1

    def test_subgraphs_within_subgraphs_have_a_depth(self, tmp_path: Path) -> None:
        def field(number: int, content: bytes) -> bytes:
            length, size = b"", len(content)
            while size > 0x7F:
                length, size = length + bytes([size & 0x7F | 0x80]), size >> 7
            return bytes([number << 3 | 2]) + length + bytes([size]) + content

        graph = b""
        for _ in range(300):
            graph = field(1, field(5, field(6, graph)))  # a node's attribute that is a graph
        path = tmp_path / "m.onnx"
        path.write_bytes(field(7, graph))
        assert operators(path).total() == 0
        with pytest.raises(BackendError, match="is not an ONNX file"):
            weights_beside(path)


class TestPictures:
    @pytest.fixture
    def loops(self, tmp_path: Path) -> Path:
        """A folder with one picture, and links that lead back to it."""
        folder = tmp_path / "photos"
        (folder / "a").mkdir(parents=True)
        (folder / "a" / "1.png").touch()
        for i in range(4):
            (folder / f"up{i}").symlink_to(folder)
            (folder / "a" / f"up{i}").symlink_to(folder)
        return folder

    @pytest.mark.parametrize("pattern", ["**", "**/*.png", "*/**/*.png"])
    def test_links_back_are_not_followed(self, pattern: str, loops: Path) -> None:
        assert (loops / "a" / "1.png") in find_images(f"{loops}/{pattern}")
        given = {Path(item.id) for item in list_items([f"{loops}/a/**/*.png"], Columns())}
        assert given == {loops / "a" / "1.png"}

    def test_a_pattern_matches_as_in_a_shell(self, tmp_path: Path) -> None:
        for name in ("a/b/1.png", "a/2.png", "a/.h/3.png", "a/.4.png", "5.png"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()

        def found(pattern: str) -> set[str]:
            return {str(path.relative_to(tmp_path)) for path in matching(tmp_path / pattern)}

        assert found("**/*.png") == {"a/b/1.png", "a/2.png", "5.png"}
        assert found("a/**") == {"a", "a/b", "a/b/1.png", "a/2.png"}
        assert found("**/b/*") == {"a/b/1.png"}
        assert found("*/*.png") == {"a/2.png"}
        assert found("**/.h/*") == {"a/.h/3.png"}

    @FIFO
    def test_a_pipe_is_no_picture(self, pipe: Path) -> None:
        with pytest.raises(InputError, match="a pipe, not a file"):
            load_image(pipe)
        (item,) = list_items([str(pipe)], Columns())
        (load,) = loads([item], Tables(None))
        with pytest.raises(InputError, match="a pipe, not a file"):
            load()

    @FIFO
    @pytest.mark.parametrize("name", ["pipe.tar", "pipe.parquet"])
    def test_a_pipe_is_no_archive(self, name: str, pipe: Path) -> None:
        pipe.rename(pipe.with_name(name))
        with pytest.raises(InputError, match="a pipe, not a file"):
            list(list_items([str(pipe.with_name(name))], Columns()))


class TestArrays:
    @FIFO
    @pytest.mark.parametrize("name", ["pipe.npy", "pipe.npz"])
    def test_a_pipe_is_none(self, name: str, pipe: Path) -> None:
        with pytest.raises(InputError, match="a pipe, not a file"):
            stored(pipe.rename(pipe.with_name(name)))

    @FIFO
    def test_nor_a_training_or_a_study(self, pipe: Path) -> None:
        with pytest.raises(InputError, match="a pipe, not a file"):
            Settings.read(pipe.rename(pipe.with_name("config.json")).parent)
        pipe.with_name("config.json").rename(pipe)
        with pytest.raises(InputError, match="a pipe, not a file"):
            Measurement.read(pipe)

    def test_damaged_ones_are_told(self, tmp_path: Path) -> None:
        """Which numpy and zipfile say in errors of their own."""
        np.savez(tmp_path / "a.npz", x=SECRET)
        data = (tmp_path / "a.npz").read_bytes()
        (tmp_path / "a.npz").write_bytes(data.replace(SECRET.tobytes(), bytes(SECRET.nbytes)))
        np.save(tmp_path / "a.npy", SECRET)
        data = (tmp_path / "a.npy").read_bytes()
        (tmp_path / "a.npy").write_bytes(data.replace(b"(4,), }     ", b"(2**60,), } "))
        np.save(tmp_path / "b.npy", SECRET)
        (tmp_path / "b.npy").write_bytes(
            data.replace(b"(4,), }" + b" " * 20, b"(1" + b"0" * 17 + b",), }  ")
        )
        for name in ("a.npz", "a.npy", "b.npy"):
            with pytest.raises(InputError, match="cannot read"):
                stored(tmp_path / name)

    def test_whole_ones_are_read(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", x=SECRET)
        np.save(tmp_path / "a.npy", SECRET)
        found, alone = stored(tmp_path / "a.npz"), stored(tmp_path / "a.npy")
        assert isinstance(found, dict)
        assert found["x"].tolist() == SECRET.tolist() == np.asarray(alone).tolist()


@FIFO
def test_a_pipe_is_no_network(pipe: Path) -> None:
    for suffix in (".onnx", ".pt2", ".pt"):
        pipe = pipe.rename(pipe.with_suffix(suffix))
        with pytest.raises(SourceError):
            export(pipe, pipe.with_name("out.onnx"))
    with pytest.raises(SourceError, match="a pipe, not a file"):
        load_checkpoint(None, pipe)  # type: ignore[arg-type]
