"""Quantised networks in QDQ format: the ReLUs that their quantisers hide."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxplain.export import composites
from onnxplain.export.autodiff import active_within, dependents, depends, operator_name
from onnxplain.export.operators import Kind, row_of
from onnxplain.export.subgraphs import bodies, carried
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
    behind: set[ir.Value | None] = set()
    for node in _behind_layers(graph, dependents(graph, [image]), behind):
        x = node.inputs[0] if node.inputs else None
        if node.op_type != "QuantizeLinear" or x is None or not starts_at_zero(node):
            continue
        if not non_negative(x):
            _show_relu(graph, node, x)


def _behind_layers(
    graph: ir.Graph, active: set[ir.Value | None], behind: set[ir.Value | None]
) -> Iterator[ir.Node]:
    """The nodes, in bodies too, that come behind a layer of what depends on the image.

    Args:
        active: what depends on the image.
        behind: what comes behind a layer, to which more is added.
    """
    for node in list(graph):
        layered = _is_layer(node) and depends(node, active)
        for body in bodies(node):
            within = active_within(node, body, behind)
            while True:
                yield from _behind_layers(body, active_within(node, body, active), within)
                more = {state for state, end in carried(node, body) if end in within} - within
                if not more:
                    break
                within |= more
            layered |= not within.isdisjoint(body.outputs)
        if depends(node, behind):
            layered = True
            yield node
        if layered:
            behind.update(node.outputs)


def _show_relu(graph: ir.Graph, node: ir.Node, x: ir.Value) -> None:
    if _ends_at_six(node):
        name = f"{node.outputs[0].name}.relu6"
        low = initializer(graph, f"{name}.low", np.array(0, np.float32))
        high = initializer(graph, f"{name}.high", np.array(6, np.float32))
        gate = ir.node("Clip", [x, low, high], name=f"{node.name}.relu6")
    else:
        gate = ir.node("Relu", [x], name=f"{node.name}.relu")
    gate.outputs[0].type, gate.outputs[0].shape = x.type, x.shape
    assert node.graph is not None
    node.graph.insert_before(node, gate)
    node.replace_input_with(0, gate.outputs[0])


def recognise_dynamic_quantisers(graph: ir.Graph) -> None:
    """What DynamicQuantizeLinear makes of x, as composites: whole numbers and their scale."""
    for node in list(graph.all_nodes()):
        if not is_dynamic_quantiser(node):
            continue
        x, (q, scale, _) = node.inputs[0], node.outputs
        for back in [use.node for use in q.uses()]:
            _replace_by(back, "DynamicSteps", x, back.outputs[0])
        _replace_by(node, "DynamicScale", x, scale)


def _replace_by(node: ir.Node, op_type: str, x: Any, y: ir.Value) -> None:
    """A composite of x in place of y, an output of the node."""
    whole = ir.node(op_type, [x], domain=composites.DOMAIN, name=f"{node.name}.{op_type}")
    made = whole.outputs[0]
    made.type, made.shape, made.name = y.type, y.shape, y.name
    y.name = f"{y.name}.integers"
    assert node.graph is not None
    node.graph.insert_after(node, whole)
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
