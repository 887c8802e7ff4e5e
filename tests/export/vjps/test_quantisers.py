"""Quantisers pass cotangents straight through."""

from __future__ import annotations

import numpy as np
import pytest

from ..graphs import explain, head, images, node, write

COVERED = ("QuantizeLinear", "DequantizeLinear")


@pytest.mark.parametrize("zero_point", [np.uint8(120), np.int8(5)])
def test_a_cotangent_passes_quantisers_unchanged(zero_point, tmp_path):
    """Rounded or saturated, the pullback is that of the graph without them."""
    x = images(2, 3, 8, 8) * 3  # the quantisers hold ± 1.2: most of it saturates
    between = [
        node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        node("DequantizeLinear", ["q", "scale", "zero"], ["h"]),
    ]
    tail, weight = head("h", 192)
    weights = {"scale": np.float32(0.01), "zero": zero_point} | weight
    path = write(tmp_path / "qdq.onnx", [*between, *tail], weights)
    pullback = explain(path, x).pullback
    expected = np.broadcast_to(weight["W"][:, 1].reshape(3, 8, 8), pullback.shape)
    np.testing.assert_allclose(pullback, expected, rtol=1e-6)


def test_several_targets_pass_them_too(tmp_path):
    between = [
        node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        node("DequantizeLinear", ["q", "scale", "zero"], ["h"]),
    ]
    tail, weight = head("h", 192)
    weights = {"scale": np.float32(0.01), "zero": np.int8(3)} | weight
    path = write(tmp_path / "qdq.onnx", [*between, *tail], weights)
    several = explain(path, images(2, 3, 8, 8), target=[[1, 0], [2, 3]], multi_target=True)
    columns = weight["W"].T.reshape(4, 3, 8, 8)
    np.testing.assert_allclose(several.pullback, columns[[[1, 0], [2, 3]]], rtol=1e-6)


@pytest.mark.parametrize("per_channel", [False, True])
def test_weights_stored_as_integers_are_weights(per_channel, tmp_path):
    """Of a convolution and of a matrix product; the file keeps them as they are."""
    rng = np.random.default_rng(0)
    kernel = rng.integers(-127, 128, (4, 3, 3, 3), np.int8)
    scale = np.float32([0.01, 0.02, 0.005, 0.01]) if per_channel else np.float32(0.01)
    zero = np.zeros(scale.shape, np.int8)
    axis = {"axis": 0} if per_channel else {}
    nodes = [
        node("DequantizeLinear", ["K", "scale", "zero"], ["kernel"], **axis),
        node("Conv", ["x", "kernel"], ["c"], strides=[2, 2], pads=[1] * 4),
        node("Conv", ["c", "kernel2"], ["d"], pads=[1] * 4),
        node("DequantizeLinear", ["W8", "s", "z"], ["W"]),
        node("Flatten", ["d"], ["flat"]),
        node("Gemm", ["flat", "W"], ["y"]),
    ]
    nodes.insert(0, node("DequantizeLinear", ["K2", "s", "z"], ["kernel2"]))
    integers = {
        "K": kernel,
        "K2": rng.integers(-127, 128, (4, 4, 3, 3), np.int8),
        "W8": rng.integers(-127, 128, (64, 5), np.int8),
        "scale": scale,
        "zero": zero,
        "s": np.float32(0.02),
        "z": np.int8(0),
    }
    x = images(2, 3, 8, 8)
    quantised = explain(write(tmp_path / "q.onnx", nodes, integers), x)

    spread = scale[:, None, None, None] if per_channel else scale
    floats = {
        "kernel": (kernel * spread).astype(np.float32),
        "kernel2": integers["K2"] * np.float32(0.02),
        "W": integers["W8"] * np.float32(0.02),
    }
    plain = [n for n in nodes if n.op_type != "DequantizeLinear"]
    expected = explain(write(tmp_path / "f.onnx", plain, floats), x)
    np.testing.assert_allclose(quantised.logits, expected.logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(quantised.pullback, expected.pullback, rtol=1e-4, atol=1e-5)
