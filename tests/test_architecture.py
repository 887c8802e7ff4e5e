"""The map: which part may import which (`[tool.importlinter]` in pyproject.toml)."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from types import FrameType

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from onnxplain.cli.app import app

ROOT = Path(__file__).parent.parent


def test_imports_go_one_way_and_in_no_circle() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]
    done = subprocess.run(
        [*command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_architecture_page_names_what_is_there() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    named = set(re.findall(r"`([a-z_]+/[\w./]*)`", page))
    assert len(named) > 25
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


def walk(of: str) -> tuple[list[str], set[str]]:
    """A command of the page, and the files that it says are passed."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    section = page.split(f"## How {of} becomes")[1].split("\n## ")[0]
    command = re.findall(r"`onnxplain ([^`]*)`", section)[0]
    return shlex.split(command), set(re.findall(r"`([a-z_]+/[\w/]*\.py)`", section))


def passed(command: list[str]) -> set[str]:
    """The files with a function that runs in a command, but for the tests'."""
    files = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        files.add(frame.f_code.co_filename)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        done = CliRunner().invoke(app, command)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    assert done.exit_code == 0, done.output
    real = (Path(file).resolve() for file in files)
    return {str(file.relative_to(ROOT)) for file in real if file.is_relative_to(ROOT)}


def test_the_walks_of_the_architecture_page_are_what_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dozen files at most each; a small network's file stands for the page's large one."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    stem, head = torch.nn.Conv2d(3, 4, 3, stride=2), torch.nn.Linear(64, 3)
    network = torch.nn.Sequential(stem, torch.nn.ReLU(), torch.nn.Flatten(), head)
    torch.onnx.export(network, (torch.zeros(1, 3, 9, 9),), "net.onnx", dynamo=False)
    Image.new("RGB", (20, 16), "teal").save("cat.jpg")
    for of in ("a network", "a photograph"):
        command, named = walk(of)
        assert 8 <= len(named) <= 12
        small = ["net.onnx" if word == "resnet50" else word for word in command]
        assert sorted(named - passed(small)) == []


def test_the_distribution_has_every_package() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {
        ".".join(Path(folder).relative_to(ROOT).parts)
        for folder, _, files in os.walk(ROOT / "onnxplain", followlinks=True)
        if any(file.endswith(".py") for file in files)
        and not folder.startswith(str(ROOT / "onnxplain/kernels/library"))  # a distribution itself
    }
    assert sorted(declared["packages"]) == sorted(found)
