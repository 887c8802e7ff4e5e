"""The keys and the JSON of the entries in files: those written once load for ever."""

from __future__ import annotations

import json

import pytest

from onnxplain.contract.channels import ChannelLayer, ChannelsMetadata, Span
from onnxplain.contract.entries import Entry
from onnxplain.contract.explain import Metadata, Preprocessing
from onnxplain.contract.signals import SignalMetadata
from onnxplain.contract.steps import MatchedLayer, StepMetadata

WRITTEN = {
    "onnxplain.channels": (
        {
            "layers": [
                {"name": "conv", "channels": 8, "grid": [4, 5], "field": [[2, -1, 1], [2, 0, 2]]}
            ],
            "batch": None,
        },
        ChannelsMetadata((ChannelLayer("conv", 8, (4, 5), (Span(2, -1, 1), Span(2, 0, 2))),), None),
    ),
    "onnxplain.step": (
        {
            "layers": [{"name": "conv", "channels": 8, "positions": 20}],
            "neuron": None,
            "carried": {"next_image": "image"},
            "relevance": None,
            "batch": "batch",
        },
        StepMetadata((MatchedLayer("conv", 8, 20),), None, {"next_image": "image"}, None, "batch"),
    ),
    "onnxplain.signal": (
        {"channels": 3, "size": 32, "classes": ["cat", "dog"]},
        SignalMetadata(3, 32, ("cat", "dog")),
    ),
}


@pytest.mark.parametrize("key", WRITTEN)
def test_an_entry_of_a_file_of_0_1_is_read(key: str) -> None:
    written, entry = WRITTEN[key]
    assert isinstance(entry, Entry)
    assert type(entry).from_props({key: json.dumps(written)}) == entry


@pytest.mark.parametrize("key", WRITTEN)
def test_and_is_written_as_0_1_did(key: str) -> None:
    written, entry = WRITTEN[key]
    assert isinstance(entry, Entry)
    assert {name: json.loads(text) for name, text in entry.to_props().items()} == {key: written}


@pytest.mark.parametrize(
    ("weights", "described"),
    [
        ("", "the source's own"),
        ("DEFAULT", "pretrained"),
        ("none", "none: random, from a fixed seed"),
        ("fine.pth", "the checkpoint fine.pth"),
    ],
)
def test_a_file_says_how_its_weights_were_chosen(weights: str, described: str) -> None:
    metadata = Metadata("0.1.0", "gradient", "net", Preprocessing(8, 8, 8), weights=weights)
    assert metadata.described_weights == described
    assert Metadata.from_props(metadata.to_props()) == metadata
    older = {k: v for k, v in metadata.to_props().items() if k != "onnxplain.weights"}
    assert Metadata.from_props(older).weights == ""
