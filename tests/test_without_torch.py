"""An environment with no training framework: export, verify and explain `.onnx` files."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from .environments import environment
from .export.graphs import node, write

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a fresh environment with what `onnxplain[export]` requires, and no more."""
    folder = tmp_path_factory.mktemp("without-torch")
    packages = environment(folder, ["export"])
    (packages / "onnxplain").symlink_to(ROOT / "onnxplain")
    command = folder / "bin" / "onnxplain"
    command.write_text(f"#!{folder}/bin/python\nfrom onnxplain.cli import main\nmain()\n")
    command.chmod(0o755)
    return folder / "bin"


def run(command: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [command, *map(str, arguments)], capture_output=True, text=True, cwd=command.parent
    )


def test_an_onnx_file_is_exported_and_explained(
    commands: Path, lite0_forward: Path, photo_folder: Path, tmp_path: Path
) -> None:
    missing = run(commands / "python", "-c", "import torch")
    assert "ModuleNotFoundError" in missing.stderr
    explain = tmp_path / "explain.onnx"
    half = ["--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5"]
    onnxplain = commands / "onnxplain"
    exported = run(onnxplain, "export", lite0_forward, "-o", explain, "--method", "gradient", *half)
    assert exported.returncode == 0, exported.stderr
    explained = run(onnxplain, "explain", explain, photo_folder, "-o", tmp_path / "out")
    assert explained.returncode == 0, explained.stderr
    lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    top = {Path(r["image"]).stem: r["predictions"][0]["name"] for r in map(json.loads, lines)}
    assert top["coffee"] == "967"
    assert top["rocket"] == "657"


def small(path: Path) -> Path:
    """A classifier of 5 classes, from 8 × 8 pixels."""
    rng = np.random.default_rng(0)
    nodes = [node("Conv", ["x", "K"], ["c"]), node("Relu", ["c"], ["r"])]
    nodes += [node("Flatten", ["r"], ["f"]), node("MatMul", ["f", "W"], ["y"])]
    weights = {"K": rng.normal(size=[4, 3, 3, 3]), "W": rng.normal(size=[144, 5])}
    weights = {name: array.astype(np.float32) for name, array in weights.items()}
    return write(path, nodes, weights, (None, 3, 8, 8))


@pytest.mark.parametrize("method", ["gradient", "lrp-epsilon"])
def test_a_small_one_is_verified(method: str, commands: Path, tmp_path: Path) -> None:
    """With and without its source, by a fresh derivation of float64."""
    source = small(tmp_path / "small.onnx")
    explain, onnxplain = tmp_path / "explain.onnx", commands / "onnxplain"
    exported = run(onnxplain, "export", source, "-o", explain, "--method", method)
    assert exported.returncode == 0, exported.stderr
    verified = run(onnxplain, "verify", explain, "--source", source)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "fresh derivation" in verified.stdout


SEARCH = """
import sys
from onnxplain.vital import top_images
from onnxplain.vital.graphs.subject import read_subject
source, images = sys.argv[1:]
subject = read_subject(source, layers=["r"])
print(top_images(subject, images).best(0) == top_images(source, images, layer="r").best(0))
"""


def test_photographs_are_ranked(commands: Path, photo_folder: Path, tmp_path: Path) -> None:
    """By the file, and by what was read of it."""
    source = small(tmp_path / "small.onnx")
    ranked = run(commands / "python", "-c", SEARCH, source, photo_folder)
    assert (ranked.stdout, ranked.returncode) == ("True\n", 0), ranked.stderr


def test_a_torchvision_name_says_what_to_install(commands: Path, tmp_path: Path) -> None:
    exported = run(commands / "onnxplain", "export", "resnet50", "-o", tmp_path / "out.onnx")
    assert exported.returncode == 5
    assert 'PyTorch needs torch: pip install "onnxplain[torch]"' in exported.stderr
