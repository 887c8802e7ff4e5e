"""What the exporter does with calls of fused operations, in a graph that keeps them as calls."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.kernels.functions import DOMAIN, KernelBuilder


def add_functions(model: ir.Model, builder: KernelBuilder) -> None:
    """Add the functions that `builder` called to their model, in place."""
    called = dict.fromkeys(node.op_identifier() for node in model.graph if node.domain == DOMAIN)
    for identifier in called:
        model.functions[identifier] = builder.functions[identifier]
    if called:
        model.graph.opset_imports[DOMAIN] = 1


def batched_call(
    op: OpBuilder, node: Any, inputs: list[Any], mapped: set[int], K: ir.Value
) -> ir.Value:
    """The batching rule (`onnxplain.export.vmap`) of a call whose cotangent has the new axis.

    So z or x is read, and its softmax computed, once for all K. A gate broadcasts; a pool's
    function takes the cotangents as [K, N, C, *out] and returns [K · N, C, *size].
    """
    assert mapped == {1}  # of (z, g, T) or (x, g, T)
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    result = op.call(op.builder.functions[node.op_identifier()], *inputs, **attributes)
    y = node.outputs[0]
    assert y.shape is not None
    result.dtype = y.dtype
    if "kernel_shape" not in attributes:
        result.shape = ir.Shape([None, *y.shape])
        return result
    result.shape = ir.Shape([None, *y.shape[1:]])
    return op.Reshape(result, op.Concat(K, [-1, *y.shape[1:]], axis=0))
