"""Constants of a graph."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir


def initializer(
    graph: ir.Graph, name: str, array: np.ndarray, dtype: ir.DataType | None = None
) -> ir.Value:
    """A new constant, whose `dtype` is the array's, or given where numpy has it not."""
    tensor = ir.tensor(np.asarray(array), dtype=dtype, name=name)
    type_ = ir.TensorType(tensor.dtype)
    value = ir.Value(name=name, const_value=tensor, shape=ir.Shape(array.shape), type=type_)
    graph.register_initializer(value)
    return value


def rounded(value: ir.Value, dtype: ir.DataType) -> np.ndarray:
    """A constant's array, finite where it was: beyond the largest number stands that."""
    assert value.const_value is not None
    array = value.const_value.numpy()
    if dtype == ir.DataType.FLOAT16:
        largest = float(np.finfo(np.float16).max)
        array = np.where(np.isfinite(array), array.clip(-largest, largest), array)
    return array.astype(dtype.numpy())
