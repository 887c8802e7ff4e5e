"""The main job."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from onnxplain import demo
from onnxplain.cli import app
from onnxplain.runtime.sessions.onnx_runtime.kernels import described


def test_demo_explains_three_photographs_and_measures_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)  # threads that wait for each other's core spin
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
    ratios = measured["÷ our explain, round by round"]
    assert ratios["explain, ONNX Runtime"] == 1
    assert ratios["explain, PyTorch"] > 0
    assert measured["machine"]
    with Image.open(tmp_path / "explanations.png") as picture:
        pixels = np.asarray(picture)
    assert min(pixels.shape[:2]) > 1000
    assert pixels.std() > 20
    for label in ("espresso", "missile", "forward", "PyTorch", "Fused gates and pools"):
        assert label in result.output
    assert measured["kernels"] == described()


def test_a_busy_machine_is_told() -> None:
    assert [demo.busy_machine(load, 2) for load in (None, 0.5, 3.0)] == ["", "", ""]
    assert "a load of 10.0 on 2 cores" in demo.busy_machine(10.0, 2)


@pytest.mark.parametrize("installed", [None, "onnxplain_kernels.so"])
def test_demo_calls_the_fused_operations_where_they_are_installed(
    installed: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(demo, "library", lambda: installed)
    monkeypatch.setattr(
        "onnxplain.export.export", lambda *_, **options: asked.append(options.get("kernels"))
    )
    demo._exported(tmp_path, lambda _: None)
    assert asked == [installed is not None, None]
