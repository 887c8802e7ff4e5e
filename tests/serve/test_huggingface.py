"""A repository for the Hugging Face hub, read by the hub's own package."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import onnxplain
from onnxplain.cli.app import app
from onnxplain.errors import InputError
from onnxplain.serve.packages.huggingface import About, write_repository


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    convolution, head = nn.Conv2d(3, 6, 3, stride=2), nn.Linear(6, 4)
    pool = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(convolution, nn.ReLU(), pool, nn.Flatten(), head).eval()


@pytest.fixture
def graph(network: nn.Module, tmp_path: Path) -> Path:
    path = tmp_path / "small.explain.onnx"
    labels = ["a|b", "<script>", "c", "d"]
    onnxplain.export(network, path, example=torch.zeros(1, 3, 20, 24), labels=labels)
    return path


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "sample.jpg")
    return tmp_path / "sample.jpg"


def test_the_card_is_one_by_the_hubs_own_reader(
    network: nn.Module, graph: Path, sample: Path, tmp_path: Path
) -> None:
    about = About("me/small-explain", network, license="mit", base_model="me/small")
    card = ModelCard.load(write_repository(graph, tmp_path / "small-explain", sample, about))
    assert card.data.to_dict() == {
        "library_name": "onnxplain",
        "pipeline_tag": "image-classification",
        "tags": ["onnx", "onnxplain", "explainability", "saliency", "excitation"],
        "license": "mit",
        "base_model": "me/small",
    }
    assert "# small-explain\n" in card.text
    assert 'hf_hub_download("me/small-explain", "small.explain.onnx")' in card.text
    assert "![An image and its explanation](sample.png)" in card.text


def test_its_figures_are_the_files(
    network: nn.Module, graph: Path, sample: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "small-explain"
    write_repository(graph, folder, sample, About(source=network))
    text = (folder / "README.md").read_text()
    nodes = [node.op_type for node in onnx.load(graph).graph.node]
    assert f"{len(nodes)} nodes of {len(set(nodes))} operators |" in text
    assert f"| size | {graph.stat().st_size / 2**20:.1f} MiB |" in text
    found = onnxplain.verify(graph, network, images=[sample])
    for check in found.checks:
        assert f"| {check.what} | {check.relative_error:.1e} | {check.cosine:.9f} |" in text
    assert (folder / graph.name).read_bytes() == graph.read_bytes()
    assert Image.open(folder / "sample.png").width > 3 * 24


def test_its_code_runs(
    graph: Path, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = write_repository(graph, tmp_path / "small-explain", sample, About()).read_text()
    assert "Not measured as this card was written" in text
    first, second = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda name, file: file)
    monkeypatch.chdir(tmp_path / "small-explain")
    Image.open(sample).save("image.jpg")
    exec(first, {})
    exec(second, {})
    assert Path("why.png").stat().st_size > 0


def test_the_command(graph: Path, sample: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    command = ["package", str(graph), "--huggingface", str(folder)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == InputError.exit_code
    assert not folder.exists()
    done = CliRunner().invoke(app, [*command, "--sample", str(sample)])
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "sample.png",
        "small.explain.onnx",
    ]
    done = CliRunner().invoke(app, [*command, "--sample", str(sample)])
    assert done.exit_code == InputError.exit_code
