"""examples/space: what its page computes is what onnxplain gives."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import onnxplain

SPACE = Path(__file__).parents[2] / "examples" / "space"


@pytest.fixture(scope="module")
def app() -> ModuleType:
    spec = importlib.util.spec_from_file_location("app", SPACE / "app.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_a_space_explains(app: ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, stride=2),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(4, 3),
    ).eval()
    path, labels = tmp_path / "model.explain.onnx", ["cat", "dog", "cup"]
    example = torch.zeros(1, 3, 32, 32)
    options = {"preprocess": True, "picture": "overlay", "topk": 3, "labels": labels}
    onnxplain.export(network, path, example=example, **options)
    photograph = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    picture, found = app.Model(path)(photograph, 2)
    expected = onnxplain.load(path, "cpu")(photograph, -2)
    assert picture.shape == photograph.shape
    np.testing.assert_array_equal(picture, np.asarray(expected.picture)[0])
    probabilities = torch.softmax(torch.as_tensor(expected.logits[0]), 0)
    ranked = {labels[i]: float(probabilities[i]) for i in probabilities.argsort(descending=True)}
    assert list(found) == list(ranked)
    assert found == pytest.approx(ranked, abs=1e-5)
