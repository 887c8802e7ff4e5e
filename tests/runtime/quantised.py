"""A quantised network, as small as can be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

import onnxplain


def quantised(folder: Path, **options: bool) -> Path:
    """An explain graph of a network that ONNX Runtime's quantiser took to int8."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Noise(CalibrationDataReader):
        def __init__(self) -> None:
            self.images = iter(np.random.default_rng(0).random((2, 1, 3, 8, 8), np.float32))

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.images, None)
            return None if image is None else {"image": image}

    info, constant = helper.make_tensor_value_info, onnx.numpy_helper.from_array
    random = np.random.default_rng(0)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "w", "b"], ["z"], name="conv"),
            helper.make_node("Relu", ["z"], ["y"]),
            helper.make_node("ReduceMean", ["y", "axes"], ["logits"], keepdims=0),
        ],
        "network",
        [info("image", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [info("logits", TensorProto.FLOAT, ["N", 4])],
        [
            constant(random.standard_normal((4, 3, 3, 3), np.float32), "w"),
            constant(random.standard_normal(4, np.float32), "b"),
            constant(np.array([2, 3]), "axes"),
        ],
    )
    opsets = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), folder / "float.onnx")
    quantize_static(
        folder / "float.onnx",
        folder / "int8.onnx",
        Noise(),
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        extra_options=options,
    )
    onnxplain.export(folder / "int8.onnx", folder / "int8.explain.onnx")
    return folder / "int8.explain.onnx"
