"""A network's file is data: none of what it holds is run."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from onnxplain.errors import SourceError
from onnxplain.export import export
from onnxplain.export.sources.archives import is_expression
from onnxplain.export.sources.from_programs import load_archive
from onnxplain.export.sources.from_transformers import load_folder
from onnxplain.signal.weights import load_autoencoder


class Canary:
    """Unpickled, it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def malicious(canary: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(Canary(canary), buffer, pickle_module=pickle)
    return buffer.getvalue()


def test_a_program_with_a_pickle_in_it_runs_nothing(tmp_path: Path) -> None:
    """`torch.export.load` alone runs the one among the sample inputs."""
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten())
    program = torch.export.export(module, (torch.zeros(1, 3, 8, 8),))
    torch.export.save(program, tmp_path / "good.pt2")
    canary, changed = tmp_path / "canary", tmp_path / "bad.pt2"
    replaced = 0
    with zipfile.ZipFile(tmp_path / "good.pt2") as good, zipfile.ZipFile(changed, "w") as bad:
        for name in good.namelist():
            data = good.read(name)
            if data.startswith(b"PK"):  # written by torch.save
                data, replaced = malicious(canary), replaced + 1
            bad.writestr(name, data)
    assert replaced
    with contextlib.suppress(SourceError):
        export(changed, tmp_path / "explain.onnx")
    assert not canary.exists()


def test_the_canary_sings_where_pickles_are_run(tmp_path: Path) -> None:
    """What the tests above rely on."""
    torch.load(io.BytesIO(malicious(tmp_path / "canary")), weights_only=False)
    assert (tmp_path / "canary").exists()


def test_a_folder_with_python_of_its_own_is_refused_without_asking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked on the terminal, "y" would run it."""
    canary = tmp_path / "canary"
    config = transformers.ResNetConfig(num_channels=3, embedding_size=4, hidden_sizes=[4, 4, 4, 4])
    folder = tmp_path / "model"
    config.architectures = ["Own"]
    config.auto_map = {
        "AutoConfig": "own.OwnConfig",
        "AutoModelForImageClassification": "own.Own",
    }
    config.model_type = "own"
    config.save_pretrained(folder)
    text = (folder / "config.json").read_text().replace('"resnet"', '"own"')
    (folder / "config.json").write_text(text)
    (folder / "own.py").write_text(f"import pathlib; pathlib.Path({str(canary)!r}).touch()")
    monkeypatch.setattr("builtins.input", lambda *prompt: "y")
    with pytest.raises(SourceError, match="holds no Hugging Face image classifier"):
        export(folder, tmp_path / "explain.onnx")
    assert not canary.exists()


def test_nor_are_pickled_weights_in_one(tmp_path: Path) -> None:
    config = transformers.ResNetConfig(embedding_size=4, hidden_sizes=[4], depths=[1])
    transformers.ResNetForImageClassification(config).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(malicious(tmp_path / "canary"))
    with pytest.raises(SourceError):
        load_folder(tmp_path)
    assert not (tmp_path / "canary").exists()


def test_nor_in_the_weights_of_an_autoencoder(tmp_path: Path) -> None:
    (tmp_path / "autoencoder.pt").write_bytes(malicious(tmp_path / "canary"))
    with pytest.raises(SourceError):
        load_autoencoder(tmp_path / "autoencoder.pt")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("text", ["[1]", "{", "3", '{"size": []}', '{"size": "large"}'])
def test_a_processors_file_of_another_kind_is_told(text: str, tmp_path: Path) -> None:
    config = transformers.ResNetConfig(
        num_channels=3, embedding_size=4, hidden_sizes=[4], depths=[1]
    )
    transformers.ResNetForImageClassification(config).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(SourceError, match=r"preprocessor_config\.json can't be read"):
        load_folder(tmp_path)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program of an open batch."""
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 2)
    )
    batch = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(module, (torch.zeros(2, 3, 8, 8),), dynamic_shapes=batch)
    path = tmp_path_factory.mktemp("program") / "good.pt2"
    torch.export.save(program, path)
    return path


class TestPrograms:
    """Archives of `torch.export`: what PyTorch would run of them is refused before it sees them."""

    def changed(self, good: Path, path: Path, changes: dict[str, Callable[[Any], None]]) -> Path:
        """The program with its description changed: key → what is done with what holds it."""

        def change(part: Any) -> None:
            if isinstance(part, dict):
                for key in changes.keys() & part.keys():
                    changes[key](part)
                for value in part.values():
                    change(value)
            elif isinstance(part, list):
                for value in part:
                    change(value)

        with zipfile.ZipFile(good) as source, zipfile.ZipFile(path, "w") as target:
            for name in source.namelist():
                data = source.read(name)
                if "/models/" in name:
                    described = json.loads(data)
                    change(described)
                    data = json.dumps(described).encode()
                target.writestr(name, data)
        return path

    def test_a_good_one_is_read(self, good: Path) -> None:
        assert load_archive(good).range_constraints

    @pytest.mark.parametrize(
        ("key", "value", "said"),
        [
            ("expr_str", "__import__('pathlib').Path({canary!r}).touch()", "the expression"),
            ("target", "torch.os.remove", "the operator 'torch.os.remove'"),
            ("target", "torch.ops.load_library", "the operator"),
            ("target", "torch.ops.aten.from_file.default", "the operator"),
            ("guards_code", ["__import__('os').abort()"], "guards"),
            ("in_spec", '[1, {"type": "collections.defaultdict"}]', "the type"),
            ("in_spec", '[1, {"context": "{\\"__\\\\u0065num__\\": true}"}]', "the type"),
        ],
    )
    def test_code_in_its_description(
        self, key: str, value: Any, said: str, good: Path, tmp_path: Path
    ) -> None:
        canary = tmp_path / "canary"
        if isinstance(value, str) and "canary" in value:
            value = value.format(canary=str(canary))
        change = {key: lambda part: part.update({key: value})}
        path = self.changed(good, tmp_path / "bad.pt2", change)
        with pytest.raises(SourceError, match=said):
            export(path, tmp_path / "explain.onnx")
        assert not canary.exists()

    @pytest.mark.parametrize(
        "name",
        ["good/data/aotinductor/model/own.so", "good/data/constants/opaque_obj_0", "../../x.json"],
    )
    def test_files_that_are_code(self, name: str, good: Path, tmp_path: Path) -> None:
        path = tmp_path / "bad.pt2"
        path.write_bytes(good.read_bytes())
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(name, malicious(tmp_path / "canary"))
        with pytest.raises(SourceError, match="it holds the file"):
            load_archive(path)
        assert not (tmp_path / "canary").exists()

    def test_names_that_move_the_cursor(
        self, good: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """PyTorch writes them, and tracebacks, to the terminal."""
        bad = tmp_path / "bad.pt2"
        with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w") as target:
            for name in source.namelist():
                folder = "\x1b[2J" if name.endswith("version") else "good"
                target.writestr(f"{folder}/{name.partition('/')[2]}", source.read(name))
        with pytest.raises(SourceError, match=r"it holds the file '\\x1b\[2J/"):
            load_archive(bad)
        bad.write_bytes(good.read_bytes().replace(b"archive_format", b"extra/a_format"))
        with pytest.raises(SourceError, match="damaged, or of another version"):
            load_archive(bad)
        assert capfd.readouterr() == ("", "")

    def test_a_bomb(self, good: Path, tmp_path: Path) -> None:
        path = tmp_path / "bad.pt2"
        path.write_bytes(good.read_bytes())
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("good/extra/zeros", bytes(20_000_000))
        with pytest.raises(SourceError, match="the compressed file"):
            load_archive(path)

    @pytest.mark.parametrize(
        "text",
        [
            "Add(FloorDiv(Symbol('s0', positive=True, integer=True), Integer(2)), Integer(-3))",
            "Pow(Symbol('s0'), Integer(2))",
            "s0 + 1",
            "Max(Integer(1), Rational(1, 2), Float('1.5', precision=53))",
        ],
    )
    def test_arithmetic_is_an_expression(self, text: str) -> None:
        assert is_expression(text)

    @pytest.mark.parametrize(
        "text",
        [
            "__import__('os')",
            "().__class__.__base__",
            "Symbol('__import__(1)')",
            "Symbol(*[1])",
            "9**9**9",
            "Pow(Integer(9), Pow(Integer(9), Integer(9)))",
            "Pow(Pow(Integer(9), Integer(64)), Integer(64))",
            "factorial(9)",
            "lambda: 1",
            "(" * 500 + "1" + ")" * 500,
        ],
    )
    def test_what_else_python_evaluates_is_none(self, text: str) -> None:
        assert not is_expression(text)


class Writing(torch.nn.Module):
    """It saves what it sees to a file whenever it runs."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, self.path)
        return x.flatten(1)


def test_torchscript_that_writes_files_is_refused(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    torch.jit.script(Writing(str(canary))).save(tmp_path / "bad.pt")
    with pytest.raises(SourceError, match="a call of 'save'"):
        export(tmp_path / "bad.pt", tmp_path / "explain.onnx", size=8)
    assert not canary.exists()


class Speaking(torch.nn.Module):
    """Which moves the cursor of whoever exports it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        print("\x1b[2J")
        return x.flatten(1)


def test_so_is_torchscript_that_writes_to_the_terminal(tmp_path: Path) -> None:
    torch.jit.script(Speaking()).save(tmp_path / "bad.pt")
    with pytest.raises(SourceError, match="a call of 'print'"):
        export(tmp_path / "bad.pt", tmp_path / "explain.onnx", size=8)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("warn(", "a call of 'warn'"),
        ("ops . image.write_file(", "a call of 'write_file'"),
        ("ops . own.f(", "an operator of 'own'"),
    ],
)
def test_torchscript_with_operators_of_others_is_refused(
    call: str, said: str, tmp_path: Path
) -> None:
    good, bad = tmp_path / "good.pt", tmp_path / "bad.pt"
    torch.jit.script(torch.nn.Flatten()).save(good)
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name.endswith(".py"):
                data = data.replace(b"torch.flatten(", call.encode())
            target.writestr(name, data)
    with pytest.raises(SourceError, match=said):
        load_archive(bad)
