"""Half precision: a network in float16 or bfloat16 is explained in float32.

In float16 the explanation of a float16 network would be noise where cotangents underflow, and
CPUs have few float16 kernels. The weights stay as they are stored, with a Cast behind each that
the runtime folds when it loads, so that the file does not grow.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_SMALL = 1024  # elements up to which a constant is stored as float32: bounds, scales, biases
_DTYPE_ATTRIBUTES = ("to", "dtype", "output_dtype", "stash_type", "softmax_precision", "precision")


def to_float32(model: ir.Model) -> bool:
    """Compute in float32 what the network computes in half precision; was there any?"""
    graph = model.graph
    if not any(value.dtype in HALF for value in _values(graph)):
        return False
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.LiftSubgraphInitializersToMainGraphPass()(model)
    for node in graph.all_nodes():
        _retype_attributes(node)
    weights = [value for value in graph.initializers.values() if value.dtype in HALF]
    for value in _values(graph):
        if value.dtype in HALF and value not in weights:
            value.dtype = ir.DataType.FLOAT
    for weight in weights:
        _widen(graph, weight)
    return True


def is_stored_half(node: ir.Node) -> bool:
    """Whether a node is the Cast of a weight stored in half precision."""
    x = node.inputs[0] if node.inputs else None
    return node.op_type == "Cast" and x is not None and x.is_initializer() and x.dtype in HALF


def _values(graph: ir.Graph) -> list[ir.Value]:
    values = [*graph.inputs, *graph.initializers.values()]
    for inner in graph.subgraphs():
        values += [*inner.inputs, *inner.initializers.values()]
    return values + [y for node in graph.all_nodes() for y in node.outputs]


def _retype_attributes(node: ir.Node) -> None:
    for attr in list(node.attributes.values()):
        if attr.name in _DTYPE_ATTRIBUTES and attr.type == ir.AttributeType.INT:
            if attr.as_int() in HALF:
                node.attributes.add(ir.AttrInt64(attr.name, int(ir.DataType.FLOAT)))
        elif attr.type == ir.AttributeType.TENSOR and attr.as_tensor().dtype in HALF:
            node.attributes.add(ir.AttrTensor(attr.name, _as_float32(attr.as_tensor())))


def _widen(graph: ir.Graph, weight: ir.Value) -> None:
    tensor = weight.const_value
    assert tensor is not None
    if len(tensor.shape) <= 1 or tensor.size <= _SMALL:
        weight.const_value = _as_float32(tensor)
        weight.dtype = ir.DataType.FLOAT
        return
    attributes = {"to": int(ir.DataType.FLOAT)}
    cast = ir.node("Cast", [weight], attributes, name=f"{weight.name}.float32")
    wide = cast.outputs[0]
    wide.name, wide.dtype, wide.shape = f"{weight.name}.float32", ir.DataType.FLOAT, weight.shape
    for user, index in [use for use in weight.uses() if use.node is not cast]:
        user.replace_input_with(index, wide)
    graph.insert_before(graph[0], cast)


def _as_float32(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    return ir.tensor(tensor.numpy().astype("float32"), name=tensor.name)
