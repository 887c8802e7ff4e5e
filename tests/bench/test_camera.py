"""What the graph that takes pixels and draws costs, as it is measured."""

from __future__ import annotations

import json
from typing import Any

import pytest
from torch import nn

from onnxplain.bench import camera
from onnxplain.bench.camera import GRAPH, HOST, PROVIDERS, READY, RESULTS, camera_table


def small(*_: object) -> nn.Module:
    layers = nn.Conv2d(3, 8, 3, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(8, 6)).eval()


def test_every_way_is_timed_on_both_runtimes_and_the_picture_is_the_renderers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(camera, "network", small)
    monkeypatch.setattr(camera, "ROUNDS", 1)
    found = camera.measure()
    assert [engine["name"] for engine in found["engines"]] == [*PROVIDERS]
    for engine in found["engines"]:
        assert [row["name"] for row in engine["rows"]] == [READY, GRAPH, HOST]
        assert all(row["median"] > 0 and row["÷ ready"] > 0 for row in engine["rows"])
        assert engine["picture"] <= 1
    assert json.loads(json.dumps(found))["frame"] == [640, 480]
    assert camera_table(found)


def test_the_table_has_milliseconds_the_ratio_that_was_measured_and_the_worse_picture() -> None:
    """The ratio is that of rounds, which is not the ratio of the medians."""

    def engine(name: str, scale: float, picture: int) -> dict[str, Any]:
        rows = [
            {"name": way, "median": scale * ms / 1e3, "÷ ready": ratio}
            for way, ms, ratio in ((GRAPH, 12, 1.0625), (HOST, 15, 1.5), (READY, 10, 1.0))
        ]
        return {"name": name, "rounds": 7, "rows": rows, "picture": picture}

    about = {"network": "net", "frame": [64, 48], "threads": 2}
    engines = [engine("One", 1, 0), engine("Other", 2, 1)]
    machine = {"cpu": "CPU", "cores": 4}
    shown = camera_table({"machine": machine, **about, "engines": engines})
    header, _, *rows, _, caption = shown.splitlines()
    assert header == "|  | One | Other |"
    assert rows == [
        f"| {READY} | 10.0 ms, 1.000 × | 20.0 ms, 1.000 × |",
        f"| {GRAPH} | 12.0 ms, 1.062 × | 24.0 ms, 1.062 × |",
        f"| {HOST} | 15.0 ms, 1.500 × | 30.0 ms, 1.500 × |",
    ]
    assert "64 × 48" in caption
    assert "medians of 7 interleaved rounds on CPU, 4 cores, and of the ratios" in caption
    assert caption.endswith("within 1/255 of the renderer's.")


def test_preprocessing_picture_and_top_five_cost_a_tenth_at_most() -> None:
    for engine in json.loads(RESULTS.read_text())["engines"]:
        beside = {row["name"]: row["÷ ready"] for row in engine["rows"]}
        assert beside[GRAPH] <= min(1.10, beside[HOST])
        assert engine["picture"] <= 1
