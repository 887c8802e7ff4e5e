"""What the graph that takes pixels and draws costs, as it is measured."""

from __future__ import annotations

import json

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
    assert "within" in camera_table(found)


def test_preprocessing_picture_and_top_five_cost_a_tenth_at_most() -> None:
    for engine in json.loads(RESULTS.read_text())["engines"]:
        beside = {row["name"]: row["÷ ready"] for row in engine["rows"]}
        assert beside[GRAPH] <= min(1.10, beside[HOST])
        assert engine["picture"] <= 1
