"""A network's file is data: none of what it holds is run."""

from __future__ import annotations

import contextlib
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from onnxplain.errors import SourceError
from onnxplain.export import export


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
