"""The code in docs/camera.md, which needs no package of ours, run as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import onnxplain

from .files import explain_graph, noise

DOCUMENT = Path(__file__).parents[2] / "docs" / "camera.md"


def test_the_recipe_explains_a_jpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    path = explain_graph(tmp_path, preprocess=True).rename(tmp_path / "resnet50.explain.onnx")
    Image.fromarray(noise(70, 90, 3)).save(tmp_path / "photograph.jpg")
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(code, found)
    expected = onnxplain.load(path, "cpu")("photograph.jpg")
    np.testing.assert_allclose(found["logits"], expected.logits, rtol=1e-5)
    np.testing.assert_allclose(found["pullback"], expected.pullback, rtol=1e-4, atol=1e-7)
