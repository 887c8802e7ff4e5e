"""Quantised networks in QDQ format: the ReLUs that their quantisers hide."""

from __future__ import annotations

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
    """DynamicQuantizeLinear and back is one composite, which is passed straight through."""
    for node in list(graph):
        q = node.inputs[0] if node.op_type == "DequantizeLinear" else None
        quantiser = None if q is None else q.producer()
        if quantiser is not None and is_dynamic_quantiser(quantiser):
            x, y = quantiser.inputs[0], node.outputs[0]
            whole = ir.node("DynamicQuantiser", [x], domain=composites.DOMAIN, name=node.name)
            whole.outputs[0].type, whole.outputs[0].shape = y.type, y.shape
            ir.convenience.replace_nodes_and_values(
                graph, node, [node], [whole], [y], whole.outputs
            )


def is_dynamic_quantiser(node: ir.Node) -> bool:
    """Whether a node quantises by what it sees, and nothing but the floats again is made of it."""
    used = [use.node.op_type for y in node.outputs for use in y.uses()]
    return node.op_type == "DynamicQuantizeLinear" and {*used} == {"DequantizeLinear"}


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
