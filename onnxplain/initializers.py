"""Constants of a graph, for what writes graphs and what converts them when they are loaded."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir


def initializer(
    graph: ir.Graph, name: str, array: np.ndarray, dtype: ir.DataType | None = None
) -> ir.Value:
    """A new constant; `dtype` is the array's unless given, for one that numpy lacks."""
    tensor = ir.tensor(np.asarray(array), dtype=dtype, name=name)
    type_ = ir.TensorType(tensor.dtype)
    value = ir.Value(name=name, const_value=tensor, shape=ir.Shape(array.shape), type=type_)
    graph.register_initializer(value)
    return value
