"""timm's transformers, untrained: a map with no layer named, or a sentence that says why not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from onnxplain.bench.zoo.__main__ import MAPS
from onnxplain.bench.zoo.maps import METHODS, answered, maps_of
from onnxplain.bench.zoo.networks import TRANSFORMERS

RECORD: dict[str, Any] = json.loads(MAPS.read_text())["networks"]


def said(entry: dict[str, Any]) -> dict[str, Any]:
    """Of each map what it is of, or the sentence why there is none."""
    return {method: made["refused"] or made["of"] for method, made in entry["methods"].items()}


@pytest.mark.parametrize("name", RECORD)
def test_the_record_has_a_map_or_a_named_reason(name: str) -> None:
    entry = RECORD[name]
    assert answered(entry), entry
    assert {*entry["methods"]} == {*METHODS}
    for made in entry["methods"].values():
        assert made["refused"] is None or "choose another method" in made["refused"]


@pytest.mark.sweep
@pytest.mark.parametrize("name", [f"timm/{name}" for name in TRANSFORMERS])
def test_a_family_gives_what_is_on_record(name: str) -> None:
    found = maps_of(name)
    assert answered(found), found
    assert name not in RECORD or said(found) == said(RECORD[name])
