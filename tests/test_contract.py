"""The keys and the JSON of the entries in files: those written once load for ever."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from onnxplain.contract.channels import ChannelLayer, ChannelsMetadata, Span
from onnxplain.contract.derivatives import Derivatives
from onnxplain.contract.entries import Entry
from onnxplain.contract.explain import Metadata, Preprocessing
from onnxplain.contract.pixels import Pixels
from onnxplain.contract.ranges import Range
from onnxplain.contract.signals import SignalMetadata
from onnxplain.contract.steps import MatchedLayer, StepMetadata
from onnxplain.errors import BackendError
from onnxplain.printable import printable
from onnxplain.runtime.signature import Port, Signature

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


GOOD = Metadata("0.1.0", "gradient", "net", Preprocessing(8, 8, 8), labels=("cat", "dog"))


OF_0_1 = {"height", "width", "resize", "mean", "std", "interpolation", "layout"}
"""The fields of a preprocessing in files of 0.1, which refuses others."""


def test_a_plain_classifier_s_file_is_as_0_1_wrote_it() -> None:
    entry = json.loads(GOOD.to_props()["onnxplain.preprocessing"])
    assert entry.keys() == OF_0_1


@pytest.mark.parametrize(
    "changed", [{"fit": "squash"}, {"fill": 7}, {"half": "down"}, {"multiple": 4}]
)
def test_what_0_1_did_not_know_is_said_where_it_is_otherwise(changed: dict[str, Any]) -> None:
    metadata = replace(GOOD, preprocessing=replace(GOOD.preprocessing, **changed))
    entry = json.loads(metadata.to_props()["onnxplain.preprocessing"])
    assert entry.keys() == OF_0_1 | changed.keys()
    assert Metadata.from_props(metadata.to_props()) == metadata


@pytest.mark.parametrize(
    ("entry", "key", "value"),
    [
        ("preprocessing", "mean", [0.5]),
        ("preprocessing", "std", [0.2, 0.0, 0.2]),
        ("preprocessing", "mean", [float("nan")] * 3),
        ("preprocessing", "mean", "red"),
        ("preprocessing", "height", "8"),
        ("preprocessing", "height", 8.5),
        ("preprocessing", "resize", 0),
        ("preprocessing", "width", -1),
        ("preprocessing", "resize", 10**9),
        ("preprocessing", "interpolation", "magic"),
        ("preprocessing", "layout", "XY"),
        ("preprocessing", "own", 1),
        ("ascent", "steps", 1.5),
        ("preprocessing", "mean", [10**30, 0.4, 0.4]),
        ("preprocessing", "std", [10**400, 0.4, 0.4]),
        ("ascent", "alpha", float("inf")),
        ("ascent", "alpha", 10**400),
        ("ascent", "eps", -1.0),
        ("ascent", "steps", 10**9),
        ("parameters", "temperature", [1]),
        ("multiply_adds", "forward", "many"),
        ("multiply_adds", "forward", -1),
        ("multiply_adds", "forward", 5),
        ("patterns", "GELU", None),
        ("patterns", "GELU", -1),
        ("preprocessing", "std", [0.2, -0.2, 0.2]),
        ("preprocessing", "std", [0.2, 1e-320, 0.2]),
        ("parameters", "temperature", float("inf")),
        ("estimator", "explanations", -5),
        ("pixels", "geometry", "photograph"),
        ("objective", "classes", -5),
        ("ranges", "relu", {"low": 1, "high": 0}),
        ("ranges", "relu", {"low": float("nan")}),
    ],
)
def test_a_lying_entry_is_refused(entry: str, key: str, value: object) -> None:
    props = GOOD.to_props()
    changed = {**json.loads(props.get(f"onnxplain.{entry}", "{}")), key: value}
    props[f"onnxplain.{entry}"] = json.dumps(changed)
    with pytest.raises(BackendError, match="metadata cannot be read"):
        Metadata.from_props(props)


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ("activation", "evil"),
        ("kind", "evil"),
        ("labels", '["cat", 1]'),
        ("labels", "[" * 100_000),
        ("labels", "3"),
        ("labels", '"cat"'),
        ("notes", '"cat"'),
        ("values", '{"inputs": {"x": {"kind": "table", "sizes": "NF"}}}'),
        ("objective", '{"inputs": {"x": {"meaning": "", "shape": "9"}}}'),
        ("preprocessing", "[]"),
        ("parameters", "null"),
        ("ranges", '{"T": {"low": "high"}}'),
        ("multiply_adds", "1e999"),
    ],
)
def test_so_is_one_of_another_kind(entry: str, text: str) -> None:
    props = {**GOOD.to_props(), f"onnxplain.{entry}": text}
    with pytest.raises(BackendError, match="metadata cannot be read"):
        Metadata.from_props(props)


def test_it_says_which_and_what_may_be_there() -> None:
    props = replace(GOOD, preprocessing=Preprocessing(8, 8, 0)).to_props()
    said = r"\(preprocessing: resize is 0, must be 1…32768\)"
    with pytest.raises(BackendError, match=said):
        Metadata.from_props(props)


def test_a_number_that_float32_does_not_hold_is_told_which_it_does() -> None:
    assert Range().refusal(-1) == "must be a positive number, not -1"
    said = Range().refusal(1e-39)
    assert (
        said == "must be a positive number, not 1e-39; float32 holds those from 1.2e-38 to 3.4e+38"
    )


@pytest.mark.parametrize("key", WRITTEN)
@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "1", '{"layers": [1]}', "null"])
def test_so_are_those_of_other_graphs(key: str, text: str) -> None:
    _, entry = WRITTEN[key]
    assert isinstance(entry, Entry)
    with pytest.raises(BackendError, match="cannot be read"):
        type(entry).from_props({key: text})


def test_classes_are_a_list() -> None:
    entry = {"channels": 3, "size": 32, "classes": "cat"}
    with pytest.raises(BackendError, match="classes is no list"):
        SignalMetadata.from_props({"onnxplain.signal": json.dumps(entry)})


@pytest.mark.parametrize(
    "changes",
    [
        {"channels": "8"},
        {"field": [[2, None, 1], [2, 0, 2]]},
        {"field": [[2, -1, 1], ["2", 0, 2]]},
    ],
)
def test_a_layer_has_whole_numbers(changes: dict[str, Any]) -> None:
    layer = {"name": "c", "channels": 8, "grid": [4, 5], "field": None, **changes}
    written = {"layers": [layer]}
    props = {"onnxplain.channels": json.dumps({**written, "batch": None})}
    with pytest.raises(BackendError, match="cannot be read"):
        ChannelsMetadata.from_props(props)


def test_an_image_may_have_any_number_of_channels() -> None:
    own = replace(GOOD, preprocessing=Preprocessing(8, 8, 8, mean=(0.5,) * 4, std=(0.5,) * 4))
    assert Metadata.from_props(own.to_props()) == own


def test_what_would_move_the_cursor_is_spelled_out() -> None:
    evil = replace(
        GOOD,
        labels=("\x1b[2Jcat", "dog\u202e", "cat\nnote: all is well"),
        source="a\rb\x9b31m\nc",
    )
    read = Metadata.from_props(evil.to_props())
    assert read.labels == ("\\x1b[2Jcat", "dog\\u202e", "cat\\nnote: all is well")
    assert read.source == "a\\rb\\x9b31m\\nc"
    for hidden in "\u061c\u180e\u200b\u200d\ufeff\ufff9\U000e0041\u2066\ud800\x9f":
        assert printable(f"a{hidden}b") == f"a{ascii(hidden)[1:-1]}b"
    assert printable("tab\tand\nline: ünïcödé 猫") == "tab\tand\nline: ünïcödé 猫"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": ("cat",)}, "name 1 classes, its graph has 7"),
        ({"labels": ("cat",) * 50}, "name 50 classes"),
        (
            {"preprocessing": Preprocessing(9, 8, 9)},
            r"an image is \[3, 9, 8\], its graph",
        ),
    ],
)
def test_metadata_that_disagree_with_the_graph_are_refused(
    changes: dict[str, Any], said: str
) -> None:
    image, target = Port("float32", (None, 3, 8, 8)), Port("int64", (None,))
    logits, pullback = Port("float32", (None, 7)), Port("float32", (None, 3, 8, 8))
    inputs, outputs = {"image": image, "target": target}, {"logits": logits, "pullback": pullback}
    good = replace(GOOD, labels=tuple("abcdefg"))
    assert Signature.of(good.to_props(), inputs, outputs).classes == 7
    with pytest.raises(BackendError, match=said):
        Signature.of(replace(good, **changes).to_props(), inputs, outputs)


@pytest.mark.parametrize("geometry", ["network", "photograph"])
def test_a_pullback_of_another_geometry_than_the_metadata_say_is_refused(geometry: str) -> None:
    metadata = replace(GOOD, pixels=Pixels("rgb", geometry))
    inputs = {"image": Port("uint8", (None, None, None, 3)), "target": Port("int64", (None,))}
    outputs = {"logits": Port("float32", (None, 2))}
    sides = {"network": (8, 8), "photograph": (None, None)}
    own = {**outputs, "pullback": Port("float32", (None, 3, *sides.pop(geometry)))}
    assert Signature.of(metadata.to_props(), inputs, own).metadata == metadata
    other = {**outputs, "pullback": Port("float32", (None, 3, *sides.popitem()[1]))}
    with pytest.raises(BackendError, match=f"has the size of the {geometry}, its graph"):
        Signature.of(metadata.to_props(), inputs, other)


@pytest.mark.parametrize("batch", [0, 2**31 - 1])
def test_a_batch_that_no_memory_holds_is_refused(batch: int) -> None:
    """Found by mutation: one image was repeated that often."""
    image, target = Port("float32", (batch, 3, 8, 8)), Port("int64", (batch,))
    logits = Port("float32", (batch, 2))
    inputs, outputs = {"image": image, "target": target}, {"logits": logits, "pullback": image}
    with pytest.raises(BackendError, match="declares batches of"):
        Signature.of(GOOD.to_props(), inputs, outputs)


def test_a_file_of_derivatives_is_told_from_one_that_explains() -> None:
    with pytest.raises(BackendError, match=r"holds derivatives .* onnxplain export"):
        Metadata.from_props({Derivatives.KEY: "{}"})
