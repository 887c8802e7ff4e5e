"""What old files write down so that it seems to hold for one batch or one shape alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import onnxplain

from .graphs import explain, head, images, node, operators, source_outputs, write


@pytest.mark.parametrize("opset", [11, 20])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("side", [16, 5])
def test_a_resize_to_sizes_is_one_by_scales(
    side: int, mode: str, opset: int, tmp_path: Path
) -> None:
    nodes = [
        node("Conv", ["x", "A"], ["c"], pads=[1] * 4),
        node("Resize", ["c", "roi", "none", "sizes"], ["r"], mode=mode),
        node("GlobalAveragePool", ["r"], ["p"]),
    ]
    tail, weight = head("p", 2)
    weights = {
        "A": images(2, 3, 3, 3),
        "sizes": np.array([1, 2, side, side + 1]),
        **dict.fromkeys(("roi", "none"), np.zeros(0, np.float32)),
    }
    path = write(
        tmp_path / "net.onnx", [*nodes, *tail], weights | weight, (1, 3, 8, 8), opset=opset
    )
    x = images(3, 3, 8, 8)
    found = explain(path, x)
    expected = [source_outputs(path, image[None])[0] for image in x]
    np.testing.assert_allclose(found.logits, np.concatenate(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("opset", [11, 13])
def test_a_softmax_over_the_last_axis_is_one_whatever_the_opset(opset: int, tmp_path: Path) -> None:
    """Up to opset 12 it was over all axes from one on, and the conversion flattens them."""
    nodes = [
        node("Conv", ["x", "A"], ["c"]),
        node("Reshape", ["c", "shape"], ["steps"]),
        node("Softmax", ["steps"], ["y"], axis=2),
    ]
    weights = {"A": images(4, 3, 3, 3), "shape": np.array([0, 4, 36])}
    path = write(tmp_path / "net.onnx", nodes, weights, ("N", 3, 8, 8), opset=opset)
    metadata = onnxplain.export(path, tmp_path / "e.onnx", objective="sequence", method="gradient")
    assert metadata.objective.activation == "softmax"
    assert operators(tmp_path / "e.onnx")["Softmax"] == 1
    x = images(2, 3, 8, 8)
    found = onnxplain.load(tmp_path / "e.onnx", threads=1)(x)
    np.testing.assert_allclose(found.outputs["y"], source_outputs(path, x)[0], rtol=1e-5)
