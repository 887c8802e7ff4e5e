"""Networks quantised in QDQ format: the ReLUs in their quantisers are shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import QuantType

import onnxplain
from onnxplain.export.sources.source import torch_network
from onnxplain.runtime.inputs.batches import as_batch
from onnxplain.runtime.sessions.onnx_runtime import options

from .graphs import cosine, explain, head, images, node, operators, session, write
from .quantised import quantised, write_network

X = images(4, 3, 12, 12)
LOWEST = np.uint8(0)


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return write_network(tmp_path)


def gates(path: Path) -> tuple[int, int]:
    count = operators(path)
    return count["Relu"], count["Clip"]


@pytest.mark.parametrize("activations", [QuantType.QUInt8, QuantType.QInt8])
def test_relus_that_the_quantiser_removed_are_shown(activations: QuantType, network: Path) -> None:
    source = quantised(network, X, activation_type=activations)
    assert gates(source) == (0, 0)
    explain(source, X, method="excitation")
    assert gates(source.with_suffix(".excitation.onnx")) == (2, 1)


def test_the_forward_pass_stays_bit_by_bit(network: Path) -> None:
    source = quantised(network, X)
    explain(source, X)
    path = source.with_suffix(".gradient.onnx")
    expected = session(source, optimised=False).run(None, {"x": X})[0]
    feeds = {"image": X, "target": np.zeros(4, np.int64)}
    logits = session(path, optimised=False).run(["logits"], feeds)[0]
    np.testing.assert_array_equal(logits, expected)


@pytest.mark.parametrize("settings", [
    {},
    {"activation_type": QuantType.QInt8, "extra_options": {"ActivationSymmetric": True}},
    {"activation_type": QuantType.QUInt16},
])  # fmt: skip
def test_the_explanation_is_close_to_the_float_networks(
    settings: dict[str, Any], network: Path
) -> None:
    """Relus that were there, that were removed, and the 16-bit form, all alike."""
    for method, least in (("excitation", 0.98), ("gradient", 0.9)):
        expected = explain(network, X, method=method)
        found = explain(quantised(network, X, **settings), X, method=method)
        assert cosine(found.pullback, expected.pullback) >= least


@pytest.mark.parametrize("saturates", [False, True])
def test_where_int8_products_overflow_float32_takes_their_place(
    saturates: bool, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A choice by the processor, both of which are close here if the processor has VNNI."""
    monkeypatch.setattr(options, "saturates", lambda: saturates)
    opened = options.session_options().get_session_config_entry
    if not saturates:
        with pytest.raises(RuntimeError):
            opened("session.disable_quant_qdq")
        return
    assert opened("session.disable_quant_qdq") == "1"
    assert opened("session.x64quantprecision") == "1"
    expected = explain(network, X, method="excitation")
    found = explain(quantised(network, X), X, method="excitation")
    assert cosine(found.pullback, expected.pullback) >= 0.98


def qdq(path: Path, *before: onnx.NodeProto, zero: Any = LOWEST, **weights: Any) -> Path:
    """x → before → h → Q → DQ → the head."""
    between = [
        node("QuantizeLinear", ["h", "scale", "zero"], ["q"]),
        node("DequantizeLinear", ["q", "scale", "zero"], ["k"]),
    ]
    tail, weight = head("k", 3 * 144)
    weights = {"scale": np.float32(0.02), "zero": zero, "two": DOUBLE} | weights | weight
    return write(path, [*before, *between, *tail], weights, ("N", 3, 12, 12))


DOUBLE = 2 * np.eye(3, dtype=np.float32)[:, :, None, None]
TWICE = node("Conv", ["x", "two"], ["h"])


@pytest.mark.parametrize(
    ("zero", "before", "shown"),
    [
        (np.uint8(0), [TWICE], 1),
        (np.int8(-128), [TWICE], 1),
        (np.uint16(0), [TWICE], 1),
        (np.uint8(1), [TWICE], 0),
        (np.int8(0), [TWICE], 0),
        (np.uint8(0), [node("Sigmoid", ["x"], ["h"])], 0),
        (np.uint8(0), [node("Abs", ["x"], ["a"]), node("Add", ["a", "a"], ["h"])], 0),
        (np.uint8(0), [node("Exp", ["x"], ["a"]), node("Concat", ["a"], ["h"], axis=1)], 0),
        (np.uint8(0), [node("Reshape", ["x", "same"], ["h"])], 0),  # the image is no activation
        (np.uint8(0), [node("Sub", ["x", "mean"], ["a"]), node("Mul", ["a", "mean"], ["h"])], 0),
        (np.uint8(0), [node("Conv", ["x", "two"], ["a"]), node("Sub", ["a", "x"], ["h"])], 1),
        (np.uint8(0), [node("MatMul", ["x", "square"], ["a"]), node("Neg", ["a"], ["h"])], 1),
    ],
)
def test_which_quantisers_stand_for_a_relu(
    zero: Any, before: list[onnx.NodeProto], shown: int, tmp_path: Path
) -> None:
    constants = {
        "same": np.array([0, 3, 12, 12]),
        "mean": images(3, 1, 1),
        "square": images(12, 12),
    }
    path = qdq(tmp_path / "q.onnx", *before, zero=zero, **constants)
    model = onnx.load(path)
    if zero.dtype == np.uint16:
        model.opset_import[0].version = 21
        onnx.save(model, path)
    onnxplain.export(path, tmp_path / "e.onnx", method="excitation")
    assert operators(tmp_path / "e.onnx")["Relu"] == shown


def test_a_quantiser_up_to_six_stands_for_relu6(tmp_path: Path) -> None:
    path = qdq(tmp_path / "q.onnx", TWICE, scale=np.float32(6 / 255))
    x = images(2, 3, 12, 12) * 3
    gradient = explain(path, x).pullback
    inside = (x > 0) & (2 * x < 6)
    assert not gradient[~inside].any()
    assert np.all(gradient[inside] != 0)


def test_a_saturation_elsewhere_is_passed_straight_through(tmp_path: Path) -> None:
    path = qdq(tmp_path / "q.onnx", TWICE, scale=np.float32(4 / 255))
    x = images(2, 3, 12, 12) * 3
    gradient = explain(path, x).pullback
    np.testing.assert_array_equal(gradient != 0, x > 0)


def test_the_file_keeps_its_integers(lite0_forward: Path, photographs: dict[str, Any]) -> None:
    """EfficientNet-Lite0 with its real weights, on photographs it was calibrated with."""
    network = torch_network("efficientnet-lite0")
    pre = network.preprocessing
    batch, _ = as_batch(list(photographs.values()), pre)
    shifted = [batch, batch[..., ::-1].copy(), np.roll(batch, 40, -1)]
    source = quantised(lite0_forward, np.concatenate(shifted))
    options = {"method": "excitation", "temperature": 1.0, "mean": pre.mean, "std": pre.std}
    expected = explain(lite0_forward, batch, target=-1, **options)
    found = explain(source, batch, target=expected.targets, **options)
    explained = source.with_suffix(".excitation.onnx")
    assert explained.stat().st_size <= 1.05 * source.stat().st_size
    assert operators(explained)["Clip"] == 33  # all ReLU6 of the network, removed and shown again

    pairs = list(zip(found.pullback, expected.pullback, strict=True))
    similarity = [cosine(a, b) for a, b in pairs]
    assert np.mean(similarity) >= 0.9
    assert min(similarity) >= 0.85  # rounding the weights alone leaves 0.98, 0.97 and 0.92
    heat = zip(found.heatmap(), expected.heatmap(), strict=True)
    assert min(cosine(a, b) for a, b in heat) >= 0.98
