"""What the exporter does with calls of fused operations, in a graph that keeps them as calls."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.kernels.bodies import relu_normal_gate, relu_soft_gate
from onnxplain.kernels.functions import DOMAIN, KernelBuilder

MERGED = {"SoftGate": relu_soft_gate, "NormalGate": relu_normal_gate}
"""A gate → the operation that gives both the ReLU and that gate from one read of z."""


def keep_calls(model: ir.Model, builder: KernelBuilder) -> None:
    """Add the functions that `builder` called to their model, in place, and read each z only once.

    A ReLU whose input a gate reads too becomes one `ReluSoftGate` together with that gate, whose
    product is then an ordinary Mul: an engine fuses it with what makes the cotangent. The graph
    has to be sorted again afterwards.
    """
    graph = model.graph
    for node in list(graph):
        if node.op_type == "Relu" and not node.outputs[0].is_graph_output():
            _merge_with_gates(builder.op, node)
    called = dict.fromkeys(node.op_identifier() for node in graph if node.domain == DOMAIN)
    for identifier in called:
        model.functions[identifier] = builder.functions[identifier]
    if called:
        graph.opset_imports[DOMAIN] = 1


def _merge_with_gates(op: OpBuilder, relu: ir.Node) -> None:
    z = relu.inputs[0]
    assert z is not None
    uses = [node for node, index in z.uses() if index == 0 and node.domain == DOMAIN]
    gated = [node for node in uses if node.op_type in MERGED]
    if not gated:
        return
    T = gated[0].inputs[2]
    assert T is not None
    y, gate = MERGED[gated[0].op_type](op, z, T)
    replacements = [(relu, y), *((node, op.Mul(node.inputs[1], gate)) for node in gated)]
    for old, new in replacements:
        made = new.producer()
        assert made is not None
        made.name = old.name
        ir.convenience.replace_all_uses_with(old.outputs[0], new)
        op.builder.graph.remove(old, safe=True)


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
