"""A convolutional network small enough for anything, and its explain graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import onnxplain

SIZE, CLASSES = 32, 5


def network() -> onnx.ModelProto:
    """Convolutions of stride 2 and 1, a ReLU behind each, a max-pool between, and a head."""
    random = np.random.default_rng(0)
    shapes = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 8, 3, 3), "b2": (8,), "w3": (5, 8)}
    weights = [
        numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name)
        for name, shape in {**shapes, "b3": (CLASSES,)}.items()
    ]
    around = [1] * 4
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["a"], pads=around, strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MaxPool", ["b"], ["c"], kernel_shape=[3, 3], strides=[2, 2], pads=around),
        helper.make_node("Conv", ["c", "w2", "b2"], ["d"], pads=around),
        helper.make_node("Relu", ["d"], ["e"]),
        helper.make_node("GlobalAveragePool", ["e"], ["f"]),
        helper.make_node("Flatten", ["f"], ["h"]),
        helper.make_node("Gemm", ["h", "w3", "b3"], ["logits"], transB=1),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])
    graph = helper.make_graph(nodes, "small", [image], [logits], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def explain_graph(folder: Path, **options: Any) -> Path:
    """Its explain graph, as a file in the folder."""
    forward, path = folder / "small.onnx", folder / "small.explain.onnx"
    onnx.save(network(), forward)
    onnxplain.export(forward, path, **options)
    return path
