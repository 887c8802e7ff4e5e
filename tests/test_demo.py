"""The main job."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from onnxplain.cli import app


def test_demo_explains_three_photographs_and_measures_itself(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["demo", "-o", str(tmp_path), "--repeats", "1"])
    assert result.exit_code == 0, result.output
    measured = json.loads((tmp_path / "measurements.json").read_text())
    first = {c["photograph"]: c["target"] for c in reversed(measured["explanations"])}
    assert first["chelsea"] in ("Egyptian cat", "tabby")
    assert first["coffee"] == "espresso"
    assert first["rocket"] == "missile"
    for parity in measured["parity"].values():
        assert parity["relative_l2"] <= 1e-4
        assert parity["cosine"] >= 0.99999
    assert len(measured["seconds, batch 1"]) == 3
    assert measured["machine"]
    with Image.open(tmp_path / "explanations.png") as picture:
        pixels = np.asarray(picture)
    assert min(pixels.shape[:2]) > 1000
    assert pixels.std() > 20
    for label in ("espresso", "missile", "forward", "PyTorch"):
        assert label in result.output
