"""Quantised graphs (QDQ) for TensorRT."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from onnxplain.initializers import initializer


def float_biases(model: ir.Model) -> None:
    """Write out biases that are kept as 32-bit integers, x · scale, in place.

    ONNX Runtime's quantiser keeps them so; TensorRT's DequantizeLinear takes no more than 8 bits.
    """
    for node in list(model.graph):
        if node.op_type != "DequantizeLinear":
            continue
        x, scale = (ir.convenience.get_const_tensor(v) if v else None for v in node.inputs[:2])
        if x is None or scale is None or x.dtype != ir.DataType.INT32 or x.numpy().ndim > 1:
            continue
        bias, floats = node.outputs[0], x.numpy() * scale.numpy()
        name = f"{bias.name}_float32"
        constant = initializer(model.graph, name, floats.astype(np.float32))
        bias.replace_all_uses_with(constant)
        model.graph.remove(node, safe=True)
    common.RemoveUnusedNodesPass()(model)
