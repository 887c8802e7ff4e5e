"""A small network and the recipe of a run with it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import onnxplain
from onnxplain.batch.plan import Recipe
from onnxplain.runtime import Explainer, load
from onnxplain.runtime.onnx_file import digest

SIZE = 16


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(4, 3),
    )
    path = tmp_path_factory.mktemp("model") / "small.explain.onnx"
    example = torch.zeros(2, 3, SIZE, SIZE)
    onnxplain.export(network.eval(), path, example=example, temperature=1.0)
    return path


@pytest.fixture(scope="session")
def explainer(model: Path) -> Explainer:
    return load(model, "cpu", threads=1)


@pytest.fixture
def recipe(model: Path) -> Recipe:
    return Recipe(
        model=digest(model),
        provider="cpu",
        precision="float32",
        temperature=None,
        target=-1,
        top=2,
        store="pullback",
        batch_size=2,
        shard_size=5,
        image_column=None,
    )
