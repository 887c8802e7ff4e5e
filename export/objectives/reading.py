"""What several objectives read of outputs: logits before a final activation, one class's row."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.objectives.objective import Output
from onnxplain.export.tensors import axis_of, integers, rank


def one_hot_row(op: OpBuilder, index: ir.Value, count: int, like: ir.Value) -> ir.Value:
    """Indices [N] as rows [N, count] of the dtype of `like`: 1 at the index, else 0."""
    places = integers(op, np.arange(count))
    return op.CastLike(op.Equal(op.Unsqueeze(index, [1]), places), like)


def before_activation(output: Output, axis: int) -> tuple[ir.Value, str]:
    """An output's value before a Sigmoid, or a Softmax over its axis `axis`, in which it ends.

    Returns:
        The value, of the output's shape and axes, and "sigmoid", "softmax", or "" where it ends in
        neither; then it is the output itself.
    """
    node = output.value.producer()
    if node is None or node.inputs[0] is None:
        return output.value, ""
    if node.op_type == "Sigmoid":
        return node.inputs[0], "sigmoid"
    if node.op_type in ("Softmax", "LogSoftmax"):
        x = node.inputs[0]
        if axis_of(node, x) == axis - rank(x):
            return x, "softmax"
    return output.value, ""
