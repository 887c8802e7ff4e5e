"""What a value of the forward graph is: constant, a weight of others, known not to be negative.

Each is answered by walking up from the value, through what made it.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxplain.export.autodiff import Node, is_constant, operator_name
from onnxplain.export.operators import Axes, Kind, Linear, row_of
from onnxplain.export.subgraphs import operands


def varies(value: ir.Value | None) -> bool:
    """Whether a value depends on an input of the graph; its shape or dtype alone, and what is held
    constant, does not count."""
    waiting, seen = [value], set()
    while waiting:
        x = waiting.pop()
        if x is None or x in seen or x.is_initializer():
            continue
        node = x.producer()
        if node is None:
            return True
        seen.add(x)
        if not is_constant(node):
            waiting.extend(node.inputs[:1] if node.op_type == "CastLike" else operands(node))
    return False


def varying(node: Node) -> list[int]:
    """The indices of a node's operands that depend on an input of the graph."""
    return [i for i, x in enumerate(operands(node)) if varies(x)]


def is_weight(value: ir.Value | None) -> bool:
    """Whether a value is attention's weights or a gate, or linear in such and in nothing else."""
    waiting = [value]
    while waiting:
        x = waiting.pop()
        node = None if x is None else x.producer()
        if node is None:
            return False
        row = row_of(operator_name(node))
        if row.kind is Kind.WEIGHTS:
            continue
        sources = [y for y in node.inputs if varies(y)]
        of_several = adds_up(node) or row.linear is Linear.TOGETHER or node.op_type == "Div"
        if not of_several and (row.linear is Linear.NONE or len(sources) > 1):
            return False
        if not sources:
            return False
        waiting.extend(sources)
    return True


def adds_up(node: Node) -> bool:
    """Whether a node adds what it reads, each element to those of its place.

    IsNaN and Where are the guard of masked attention, for which rows of NaN become zeros.
    """
    row = row_of(operator_name(node))
    added = row.linear is Linear.TOGETHER and row.axes is Axes.ELEMENTWISE
    return added or node.op_type == "IsNaN"


def non_negative(value: ir.Value | None) -> bool:
    """Whether no element of a value can be negative, as far as the graph tells."""
    waiting, seen = [value], set()
    while waiting:
        x = waiting.pop()
        if x is None or x in seen:
            continue
        seen.add(x)
        tensor = ir.convenience.get_const_tensor(x)
        if tensor is not None:
            if (tensor.numpy() < 0).any():
                return False
            continue
        node = x.producer()
        if node is None:
            return False
        required = row_of(operator_name(node)).sign(node)
        if required is None:
            return False
        waiting.extend(required)
    return True
