"""An environment with no training framework: export, verify and explain a real `.onnx` file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.xdist_group("installs")  # two builds in one tree disturb each other


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a fresh environment with `onnxplain[export]` alone."""
    folder = tmp_path_factory.mktemp("without-torch")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, f"{ROOT}[export]"], check=True)
    return folder / "bin"


def run(command: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [command, *map(str, arguments)], capture_output=True, text=True, cwd=command.parent
    )


def test_an_onnx_file_is_exported_verified_and_explained(
    commands: Path, lite0_forward: Path, photo_folder: Path, tmp_path: Path
) -> None:
    missing = run(commands / "python", "-c", "import torch")
    assert "ModuleNotFoundError" in missing.stderr
    explain = tmp_path / "explain.onnx"
    half = ["--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5"]
    onnxplain = commands / "onnxplain"
    exported = run(onnxplain, "export", lite0_forward, "-o", explain, "--method", "gradient", *half)
    assert exported.returncode == 0, exported.stderr
    verified = run(onnxplain, "verify", explain, "--image", photo_folder / "rocket.jpg")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    explained = run(onnxplain, "explain", explain, photo_folder, "-o", tmp_path / "out")
    assert explained.returncode == 0, explained.stderr
    lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    top = {Path(r["image"]).stem: r["predictions"][0]["name"] for r in map(json.loads, lines)}
    assert top["coffee"] == "967"
    assert top["rocket"] == "657"


def test_a_torchvision_name_says_what_to_install(commands: Path, tmp_path: Path) -> None:
    exported = run(commands / "onnxplain", "export", "resnet50", "-o", tmp_path / "out.onnx")
    assert exported.returncode == 3
    assert "onnxplain[torch]" in exported.stderr
