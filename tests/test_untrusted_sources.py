"""A network's file is data: none of what it holds is run."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from typer.testing import CliRunner

from onnxplain.cli import app
from onnxplain.errors import SourceError, UntrustedError
from onnxplain.export import export
from onnxplain.export.sources.from_transformers import load_folder
from onnxplain.signal import weights
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


def program(path: Path) -> None:
    """The quirk that runs a pickle: PyTorch tries again without `weights_only`."""
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten())
    program = torch.export.export(module, (torch.zeros(1, 3, 8, 8),))
    torch.export.save(program, path.with_name("good.pt2"))
    with zipfile.ZipFile(path.with_name("good.pt2")) as good, zipfile.ZipFile(path, "w") as bad:
        for name in good.namelist():
            data = good.read(name)
            written_by_torch = data.startswith(b"PK")
            bad.writestr(name, malicious(path.with_name("canary")) if written_by_torch else data)


class Writing(torch.nn.Module):
    """It saves what it sees to a file whenever it runs."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, self.path)
        return x.flatten(1)


def script(path: Path) -> None:
    torch.jit.script(Writing(str(path.with_name("canary")))).save(path)


@pytest.mark.parametrize("make", [program, script])
def test_a_file_that_can_run_code_is_loaded_where_that_is_asked_for(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    """Trusted, both do it: what the first half tests is no accident."""
    source, canary = tmp_path / "bad.pt", tmp_path / "canary"
    make(source)
    arguments = ["export", str(source), "-o", str(tmp_path / "x.onnx"), "--size", "8"]
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code == 3
    assert "onnxplain --trust" in refused.output
    with pytest.raises(UntrustedError, match="can run any code"):
        export(source, tmp_path / "x.onnx", size=8)
    assert not canary.exists()
    CliRunner().invoke(app, ["--trust", *arguments])
    assert canary.exists()
    with pytest.raises(UntrustedError):  # the command's trust ended with it
        export(source, tmp_path / "x.onnx", size=8)


@pytest.mark.parametrize("make", [program, script])
def test_nor_does_another_spelling_of_its_parts_get_it_loaded(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    """PyTorch finds a member whatever its case; what is not known for either kind is neither."""
    make(tmp_path / "bad.pt")
    respelled = tmp_path / "other.pt"
    with zipfile.ZipFile(tmp_path / "bad.pt") as bad, zipfile.ZipFile(respelled, "w") as other:
        for name in bad.namelist():
            other.writestr(name.upper(), bad.read(name))
    with pytest.raises(SourceError):
        export(respelled, tmp_path / "x.onnx", size=8)
    with pytest.raises(SourceError):
        weights.read(respelled)
    assert not (tmp_path / "canary").exists()


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


def test_a_folder_of_another_network_is_refused_in_a_line(tmp_path: Path) -> None:
    """Its models' names, which transformers lists, tell nothing of what to do."""
    transformers.BertConfig().save_pretrained(tmp_path)
    with pytest.raises(
        SourceError, match=r"image classifier: .*BertConfig.*export the module"
    ) as told:
        export(tmp_path, tmp_path / "explain.onnx")
    assert "\n" not in str(told.value)


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
