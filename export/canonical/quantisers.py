"""Quantised networks in QDQ format: the ReLUs that their quantisers hide."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from onnxplain.export import composites
from onnxplain.export.autodiff import dependents, depends, operator_name
from onnxplain.export.operators import Kind, row_of
from onnxplain.export.tensors import number_of
from onnxplain.export.values import non_negative
from onnxplain.export.vjps.quantisers import LOWEST, starts_at_zero
from onnxplain.initializers import initializer


def show_relus(graph: ir.Graph, image: ir.Value) -> None:
    """Put back the `Relu` or ReLU6 whose work a quantiser does; the forward pass stays as it is.

    ONNX Runtime's quantiser removes a ReLU or ReLU6 before a QuantizeLinear whose zero point is
    the lowest value of its type: it saturates there, so negative values become zero all the same,
    to the bit. Methods must see that gate. Where the highest value stands for 6, it was a ReLU6,
    and becomes `Clip(x, 0, 6)` again. Any other saturation at the top is a quantiser's, and is
    passed straight through. Before the first layer there is only the image, perhaps normalised.
    """
    active = dependents(graph, [image])
    layers = [node for node in graph if _is_layer(node) and depends(node, active)]
    activations = dependents(graph, [node.outputs[0] for node in layers])
    for node in list(graph):
        x = node.inputs[0] if node.inputs else None
        if node.op_type != "QuantizeLinear" or x is None or x not in activations:
            continue
        if not starts_at_zero(node) or non_negative(x):
            continue
        if _ends_at_six(node):
            name = f"{node.outputs[0].name}.relu6"
            low = initializer(graph, f"{name}.low", np.array(0, np.float32))
            high = initializer(graph, f"{name}.high", np.array(6, np.float32))
            gate = ir.node("Clip", [x, low, high], name=f"{node.name}.relu6")
        else:
            gate = ir.node("Relu", [x], name=f"{node.name}.relu")
        gate.outputs[0].type, gate.outputs[0].shape = x.type, x.shape
        graph.insert_before(node, gate)
        node.replace_input_with(0, gate.outputs[0])


def recognise_dynamic_quantisers(graph: ir.Graph) -> None:
    """What DynamicQuantizeLinear makes of x, as composites: whole numbers and their scale."""
    for node in list(graph):
        if not is_dynamic_quantiser(node):
            continue
        x, (q, scale, _) = node.inputs[0], node.outputs
        for back in [use.node for use in q.uses()]:
            _replace_by(graph, back, "DynamicSteps", x, back.outputs[0])
        _replace_by(graph, node, "DynamicScale", x, scale)


def _replace_by(graph: ir.Graph, node: ir.Node, op_type: str, x: Any, y: ir.Value) -> None:
    """A composite of x in place of y, an output of the node."""
    whole = ir.node(op_type, [x], domain=composites.DOMAIN, name=f"{node.name}.{op_type}")
    made = whole.outputs[0]
    made.type, made.shape, made.name = y.type, y.shape, y.name
    y.name = f"{y.name}.integers"
    graph.insert_after(node, whole)
    ir.convenience.replace_all_uses_with(y, made, replace_graph_outputs=True)


def is_dynamic_quantiser(node: ir.Node) -> bool:
    """Whether a node quantises by what it sees, and the integers become floats again."""
    if node.op_type != "DynamicQuantizeLinear":
        return False
    q, _, zero = node.outputs
    used = {use.node.op_type for y in (q, zero) for use in y.uses()}
    return used == {"DequantizeLinear"}


def _is_layer(node: ir.Node) -> bool:
    return row_of(operator_name(node)).kind in (Kind.CONVOLUTION, Kind.MATRIX_PRODUCT)


def _ends_at_six(node: ir.Node) -> bool:
    """Whether a quantiser from zero up has its highest value for all from 6 on, and little else."""
    assert node.inputs[1] is not None
    scale = number_of(node.inputs[1])
    dtype = node.outputs[0].dtype
    if scale is None or dtype not in LOWEST:
        return False
    steps = int(256**dtype.itemsize) - 1
    return abs(6.0 / scale - steps) < 0.5
