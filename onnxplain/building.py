"""onnxscript's builder of graphs, without the work that it does anew at every node."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import onnx
import onnx_ir as ir
from onnxscript import GraphBuilder
from onnxscript._internal.param_manipulation import separate_input_attributes_from_arguments

_SAME = {
    *("Abs", "Add", "Div", "Exp", "Mul", "Neg", "Reciprocal", "Relu", "Sigmoid", "Sqrt", "Sub"),
    *("Cos", "Erf", "Log", "Max", "Min", "Sign", "Sin", "Softplus", "Sum", "Tanh"),
}
"""Elementwise operators whose result is of their operands' dtype."""

_COMPARISONS = {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"}


class Builder(GraphBuilder):  # type: ignore[misc]
    """A `GraphBuilder` that knows an operator's signature, and the shape of a sum, at once.

    Elsewhere each node is written as a message for ONNX to infer its shapes, and each of its
    operator's schemas is read again: about half of what an export took.
    """

    def _partition_inputs_attributes(
        self, schema: onnx.defs.OpSchema | None, args: Sequence[Any], kwargs: dict[str, Any]
    ) -> tuple[Sequence[Any], dict[str, Any]]:
        if schema is None:
            return args, kwargs
        return separate_input_attributes_from_arguments(
            _signature(schema.domain, schema.name, schema.since_version),
            list(args),
            kwargs,
            fill_defaults=False,
            allow_extra_args=False,
        )

    def _infer_shapes(self, node: ir.Node) -> None:
        like = _like(node)
        if like is None:
            super()._infer_shapes(node)
            return
        y, dtype = node.outputs[0], like.dtype
        if node.op_type == "Cast":
            dtype = ir.DataType(node.attributes["to"].as_int())
        elif node.op_type in _COMPARISONS:
            dtype = ir.DataType.BOOL
        y.type, y.shape = ir.TensorType(dtype or ir.DataType.UNDEFINED), like.shape.copy()  # type: ignore[union-attr]


@cache
def _signature(domain: str, name: str, version: int) -> Any:
    return ir.schemas.OpSignature.from_op_schema(onnx.defs.get_schema(name, version, domain))


def _like(node: ir.Node) -> ir.Value | None:
    """The operand whose shape an elementwise node's result has; None where ONNX must say it."""
    if node.domain != "" or not (node.op_type in _SAME | _COMPARISONS or node.op_type == "Cast"):
        return None
    operands = [x for x in node.inputs if x is not None]
    if len(operands) < len(node.inputs) or any(x.shape is None or not x.dtype for x in operands):
        return None
    widest = max(operands, key=lambda x: len(x.shape or ()))
    others = (x for x in operands if x is not widest)
    fits = all(x.dtype == widest.dtype and _stretches(x, widest) for x in others)
    return widest if fits else None


def _stretches(x: ir.Value, y: ir.Value) -> bool:
    """Whether x is broadcast to y's shape, as far back as x has axes."""
    pairs = zip(reversed(x.shape or ()), reversed(y.shape or ()), strict=False)
    return all(n == 1 or (n == m and (isinstance(n, int) or n.value is not None)) for n, m in pairs)


def sort(graph: ir.Graph) -> None:
    """Bring a graph's nodes into a topological order, unless they are in one, as most are."""
    if not _is_sorted(graph):
        graph.sort()


def _is_sorted(graph: ir.Graph) -> bool:
    """Whether that is plain: no node has a graph of its own, or reads what a later one computes."""
    waiting = {y for node in graph for y in node.outputs}
    for node in graph:
        if not waiting.isdisjoint(node.inputs) or _has_graph(node):
            return False
        waiting.difference_update(node.outputs)
    return True


def _has_graph(node: ir.Node) -> bool:
    kinds = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    return any(attribute.type in kinds for attribute in node.attributes.values())
