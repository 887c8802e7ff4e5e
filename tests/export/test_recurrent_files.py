"""Files with recurrent layers export without a word on standard error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxplain

from .graphs import images, node, source_outputs, write

HIDDEN, WIDTH, STEPS = 4, 6, 5


@pytest.mark.parametrize(
    ("name", "gates", "options"),
    [
        ("RNN", 1, {}),
        ("GRU", 3, {}),
        ("GRU", 3, {"linear_before_reset": 1}),
        ("LSTM", 4, {}),
        ("LSTM", 4, {"direction": "bidirectional"}),
        ("GRU", 3, {"direction": "bidirectional"}),
        ("RNN", 1, {"layout": 1}),
    ],
    ids=str,
)
def test_a_recurrent_layer_is_exported_silently(
    name: str,
    gates: int,
    options: dict[str, Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    ways = 2 if options.get("direction") else 1
    first = options.get("layout", 0)
    weights = {
        "W": images(ways, gates * HIDDEN, WIDTH, seed=1),
        "R": images(ways, gates * HIDDEN, HIDDEN, seed=2),
        "B": images(ways, 2 * gates * HIDDEN, seed=3),
        "M": images(ways * HIDDEN, 3, seed=4),
        "rows": np.array([0, STEPS, WIDTH]),
        "flat": np.array([0, 0, ways * HIDDEN]),
    }
    nodes = [
        node("Reshape", ["x", "rows"], ["r"]),
        node("Transpose", ["r"], ["seq"], perm=[0, 1, 2] if first else [1, 0, 2]),
        node(name, ["seq", "W", "R", "B"], ["Y"], hidden_size=HIDDEN, **options),
        # [steps, ways, batch, hidden] or, with the layout, [batch, steps, ways, hidden]
        node("Transpose", ["Y"], ["T"], perm=[0, 1, 2, 3] if first else [2, 0, 1, 3]),
        node("Reshape", ["T", "flat"], ["F"]),
        node("ReduceMax", ["F"], ["z"], axes=[1], keepdims=0),
        node("MatMul", ["z", "M"], ["y"]),
    ]
    source = write(tmp_path / "net.onnx", nodes, weights, ("N", 1, STEPS, WIDTH), opset=17)
    path, x = tmp_path / "e.onnx", images(2, 1, STEPS, WIDTH)
    onnxplain.export(source, path, method="gradient")
    assert {record.name for record in caplog.records} <= {"onnxplain"}
    assert capfd.readouterr() == ("", "")
    if not first:  # which ONNX Runtime has no kernel for
        expected = source_outputs(source, x)[0]
        found = onnxplain.load(path, "cpu")(x).logits
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "gates"), [("RNN", 1), ("GRU", 3), ("LSTM", 4)])
def test_a_last_state_alone_is_exported_silently(
    name: str, gates: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The output before it has no name, and must not be given one."""
    weights = {
        "W": images(1, gates * HIDDEN, WIDTH, seed=1),
        "R": images(1, gates * HIDDEN, HIDDEN, seed=2),
        "M": images(HIDDEN, 3, seed=4),
        "rows": np.array([0, STEPS, WIDTH]),
        "flat": np.array([-1, HIDDEN]),
        "lengths": np.array([3, 5], np.int32),
    }
    nodes = [
        node("Reshape", ["x", "rows"], ["r"]),
        node("Transpose", ["r"], ["seq"], perm=[1, 0, 2]),
        node(name, ["seq", "W", "R", "", "lengths"], ["", "h"], hidden_size=HIDDEN),
        node("Reshape", ["h", "flat"], ["z"]),
        node("MatMul", ["z", "M"], ["y"]),
    ]
    source = write(tmp_path / "net.onnx", nodes, weights, (2, 1, STEPS, WIDTH), opset=17)
    path, x = tmp_path / "e.onnx", images(2, 1, STEPS, WIDTH)
    onnxplain.export(source, path, method="gradient")
    assert {record.name for record in caplog.records} <= {"onnxplain"}
    found = onnxplain.load(path, "cpu")(x).logits
    np.testing.assert_allclose(found, source_outputs(source, x)[0], rtol=1e-4, atol=1e-5)
