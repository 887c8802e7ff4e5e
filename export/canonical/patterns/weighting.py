"""Softmax and what a Softmax or Sigmoid is for: attention, gates, or a hidden activation."""

from __future__ import annotations

import onnx_ir as ir

from onnxplain.export.autodiff import SHAPES, dependents, operator_name
from onnxplain.export.canonical.patterns.spelling import (
    axes_of,
    constant_operand,
    made_by,
    replace,
    self_contained,
)
from onnxplain.export.operators import Kind, Linear, Operator, row_of
from onnxplain.export.values import adds_up


def recognise_softmax(graph: ir.Graph) -> None:
    """exp(x − max x) / Σ exp(x − max x), with or without the maximum, over one axis."""
    for node in list(graph):
        if node.op_type != "Div" or node.domain != "":
            continue
        exp, total = made_by(node.inputs[0], "Exp"), made_by(node.inputs[1], "ReduceSum")
        axes = None if total is None else axes_of(total)
        if exp is None or total is None or axes is None or len(axes) != 1:
            continue
        x = exp.inputs[0]
        shift = made_by(x, "Sub")
        if shift is not None:
            maximum = made_by(shift.inputs[1], "ReduceMax")
            if maximum is not None and maximum.inputs[0] is shift.inputs[0]:
                x = shift.inputs[0] if axes_of(maximum) == axes else x
        y = node.outputs[0]
        if total.inputs[0] is exp.outputs[0] and x is not None and self_contained(y, x):
            replace(y, "Softmax", [x], {"axis": axes[0]})


def recognise_weights(graph: ir.Graph) -> None:
    """Softmax → AttentionWeights, Sigmoid and HardSigmoid → their gates, if they only weight."""
    active = dependents(graph, graph.inputs)
    for node in list(graph):
        x, y = node.inputs[0] if node.inputs else None, node.outputs[0]
        if node.domain != "" or x not in active or x is None:
            continue
        if node.op_type not in ("Softmax", "Sigmoid", "HardSigmoid") or not only_weights(y, active):
            continue
        attributes = node.attributes
        if node.op_type == "Softmax":
            axis = attributes.get_int("axis", -1)
            axis = axis if axis < 0 or y.shape is None else axis - len(y.shape)
            replace(y, "onnxplain::AttentionWeights", [x], {"axis": axis})
        elif node.op_type == "Sigmoid":
            replace(y, "onnxplain::SigmoidGate", [x])
        else:
            slope, offset = attributes.get_float("alpha", 0.2), attributes.get_float("beta", 0.5)
            replace(y, "onnxplain::HardSigmoidGate", [x], {"alpha": slope, "beta": offset})


def only_weights(value: ir.Value, active: set[ir.Value | None]) -> bool:
    """Whether `value` only ever multiplies values that depend on the image, among `active`.

    On the way it may be moved, mapped linearly by constants, added to constants, and divided by its
    own sum.
    """
    reached, queue = {value}, [value]
    factors: list[set[ir.Value]] = []  # the other factor of each product: something not reached
    terms: set[ir.Value] = set()  # the summands on the way: all of them reached
    while queue:
        source = queue.pop()
        if source.is_graph_output():
            return False
        for node, index in source.uses():
            if node.op_type in SHAPES:
                continue
            if node.domain != "" or node.graph is not source.graph:
                return False
            besides = [x for i, x in enumerate(node.inputs) if i != index and x in active]
            others = {x for x in besides if x is not None}
            row = row_of(operator_name(node))
            bias = index == 2 and node.op_type != "Einsum"
            if row.linear is Linear.EACH and others and not bias:
                factors.append(others)
                continue
            if adds_up(node) or (row.linear is Linear.EACH and bias) or _shares(node):
                terms |= others
            elif not _linear(row, index, others):
                return False
            queue += [y for y in node.outputs if y not in reached]
            reached.update(node.outputs)
    return bool(factors) and terms <= reached and not any(other <= reached for other in factors)


def _shares(node: ir.Node) -> bool:
    """Whether a node divides a value by a sum over itself, perhaps plus a constant."""
    if node.op_type != "Div":
        return False
    shifted = constant_operand(made_by(node.inputs[1], "Add"), "Add")
    total = made_by(node.inputs[1] if shifted is None else shifted[0], "ReduceSum")
    return total is not None and total.inputs[0] is node.inputs[0]


def _linear(row: Operator, index: int, others: set[ir.Value]) -> bool:
    """Whether a node is linear in its input `index`, given that `others` depend on the image."""
    if row.linear is Linear.FIRST:
        return index == 0 and not (others and row.kind is Kind.PRODUCT)
    return row.linear is not Linear.NONE
