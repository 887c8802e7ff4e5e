"""Networks that take blue, green and red."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxplain
from onnxplain.errors import SourceError

NETWORK = """
    <ir_version: 9, opset_import: ["": 20]>
    colours (float[1, {shape}] pixels) => (float[1, 4] scores)
    <float[4, {size}] weights = {{ {numbers} }}> {{
        flat = Flatten (pixels)
        low = Relu (flat)
        scores = Gemm <transB = 1> (low, weights)
    }}
"""

WEIGHTS = np.random.default_rng(0).normal(size=(4, 12)).astype(np.float32)
SHAPES = {"NCHW": "3, 2, 2", "NHWC": "2, 2, 3"}


def source(path: Path, layout: str, shape: str = "") -> Path:
    numbers = ", ".join(f"{number:.9g}" for number in WEIGHTS.reshape(-1))
    text = NETWORK.format(shape=shape or SHAPES[layout], size=12, numbers=numbers)
    onnx.save(onnx.parser.parse_model(text), path)
    return path


@pytest.mark.usefixtures("compared")
@pytest.mark.parametrize("layout", SHAPES)
def test_the_file_takes_red_first(layout: str, tmp_path: Path) -> None:
    network, file = source(tmp_path / "n.onnx", layout), tmp_path / "e.onnx"
    options = {"method": "gradient", "mean": [0, 0, 0], "std": [1, 1, 1]}
    metadata = onnxplain.export(network, file, channels="bgr", **options)
    assert not any("not checked" in note for note in metadata.notes)
    assert metadata.parameters["channels"] == "bgr"
    assert metadata.preprocessing.layout == layout
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 255
    explainer = onnxplain.load(file, "cpu")
    assert explainer.backend.signature.batch is None
    explanation = explainer(red, 1)
    weights = WEIGHTS[1].reshape((3, 4) if layout == "NCHW" else (4, 3))
    blue_to_red = weights if layout == "NCHW" else weights.T
    np.testing.assert_allclose(explanation.target_logits, [blue_to_red[2].sum()], rtol=1e-5)
    np.testing.assert_allclose(explanation.pullback[0, 0], blue_to_red[2].reshape(2, 2), rtol=1e-6)
    assert not explanation.pullback[0, 2].any()  # where blue is 0
    assert explanation.photographs[0, 0, 0].tolist() == [255, 0, 0]
    assert onnxplain.verify(file, network).passed


def test_it_is_for_three_channels_and_two_orders(tmp_path: Path) -> None:
    network = source(tmp_path / "n.onnx", "", "1, 3, 4")
    with pytest.raises(SourceError, match="three channels"):
        onnxplain.export(network, tmp_path / "e.onnx", channels="bgr")
    with pytest.raises(SourceError, match="channels is rgb or bgr, not 'gbr'"):
        onnxplain.export(network, tmp_path / "e.onnx", channels="gbr")
