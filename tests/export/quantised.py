"""A small network, and ONNX Runtime's quantiser on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

from .graphs import head, images, node, write


class Images(CalibrationDataReader):
    def __init__(self, name: str, batch: np.ndarray) -> None:
        self.feeds = iter([{name: image[None]} for image in batch])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.feeds, None)


def quantised(source: Path, batch: np.ndarray, **options: Any) -> Path:
    name = onnx.load(source, load_external_data=False).graph.input[0].name
    path = source.with_suffix(".quantised.onnx")
    options = {"quant_format": QuantFormat.QDQ, "per_channel": True} | options
    quantize_static(source, path, Images(name, batch), **options)
    return path


def write_network(folder: Path) -> Path:
    """Conv → ReLU → pool, and a residual block Conv → ReLU6 → Conv → + → ReLU; then the head."""
    nodes = [
        node("Conv", ["x", "A", "a"], ["c"], pads=[1] * 4),
        node("Relu", ["c"], ["r"]),
        node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["p", "B", "b"], ["d"], pads=[1] * 4),
        node("Clip", ["d", "zero", "six"], ["e"]),
        node("Conv", ["e", "B", "b"], ["f"], pads=[1] * 4),
        node("Add", ["f", "p"], ["s"]),
        node("Relu", ["s"], ["t"]),
        node("GlobalAveragePool", ["t"], ["g"]),
    ]
    tail, weight = head("g", 8)
    weights = {
        "A": images(8, 3, 3, 3, seed=1),
        "a": images(8, seed=2),
        "B": images(8, 8, 3, 3, seed=3),
        "b": images(8, seed=4),
        "zero": np.float32(0),
        "six": np.float32(6),
    }
    return write(folder / "net.onnx", [*nodes, *tail], weights | weight, ("N", 3, 12, 12))
