"""Reverse-mode differentiation of an ONNX graph, on the graph itself.

A *rule* gives an operator's vector-Jacobian product: `rule(op, node, *cotangents)` emits nodes
through the builder `op` (`op.Mul(a, b)`, `op.Conv(x, w, strides=[2, 2])`; Python numbers become
constants of the neighbour's dtype) and returns the cotangents of the node's inputs, in their
order: one value alone for the first input, else a sequence. `None` in it means that no cotangent
flows there; an input past its end has no rule. There is one incoming cotangent per output of the
node, `None` for an output that nothing depends on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.errors import NoRuleError, SourceError


class Node(Protocol):
    """An `ir.Node` as its rule sees it: the inputs that its operator requires are there."""

    @property
    def name(self) -> str | None: ...
    @property
    def domain(self) -> str: ...
    @property
    def op_type(self) -> str: ...
    @property
    def inputs(self) -> Sequence[Any]: ...
    @property
    def outputs(self) -> Sequence[ir.Value]: ...
    @property
    def attributes(self) -> Any: ...
    def replace_input_with(self, index: int, value: Any) -> None: ...


Cotangents: TypeAlias = ir.Value | Sequence[ir.Value | None]
Rule: TypeAlias = Callable[..., Cotangents]


def pull_back(
    op: OpBuilder,
    seeds: Mapping[ir.Value, ir.Value],
    wanted: Sequence[ir.Value],
    rules: Mapping[str, Rule],
) -> list[ir.Value]:
    """One reverse sweep: the cotangents of `wanted`, given those of other values of the graph.

    Args:
        op: the builder of the graph that holds the forward pass; the backward nodes go to its end.
        seeds: the cotangent of each value that the sweep starts from, of that value's shape.
        wanted: where the sweep ends. Only nodes on a path from one of these to a seed are visited.
        rules: operator name → rule (`"domain::Name"` outside the standard domain).

    Returns:
        One cotangent per wanted value, of its shape and dtype.

    Raises:
        NoRuleError: an operator on a path has no rule, or none for the input concerned.
        SourceError: no seed depends on a wanted value.
    """
    nodes = list(op.builder.graph)
    active = dependents(nodes, wanted)
    arriving: defaultdict[ir.Value, list[ir.Value]] = defaultdict(list)
    for value, cotangent in seeds.items():
        arriving[value].append(cotangent)

    def total(value: ir.Value) -> ir.Value | None:
        terms = arriving[value]
        if len(terms) > 1:
            arriving[value] = terms = [op.Add(*terms) if len(terms) == 2 else op.Sum(*terms)]
        return terms[0] if terms else None

    for node in reversed(nodes):
        if not depends(node, active) or not any(arriving[y] for y in node.outputs):
            continue
        rule = rules.get(operator_name(node))
        if rule is None:
            raise NoRuleError(_no_rule(node))
        result = rule(op, node, *map(total, node.outputs))
        given = [result] if isinstance(result, ir.Value) else result
        for index, x in enumerate(node.inputs):
            if x is None or x not in active:
                continue
            if index >= len(given):
                raise NoRuleError(_no_rule(node, f" with respect to its input {index} ({x.name})"))
            if (gx := given[index]) is not None:
                arriving[x].append(gx)

    results = [total(value) for value in wanted]
    if any(result is None for result in results):
        missing = [w.name for w, r in zip(wanted, results, strict=True) if r is None]
        raise SourceError(f"the output does not depend on {', '.join(map(str, missing))}")
    return [result for result in results if result is not None]


def dependents(nodes: Iterable[ir.Node], roots: Iterable[ir.Value]) -> set[ir.Value | None]:
    """The roots and every value computed from them by `nodes` (in graph order)."""
    active: set[ir.Value | None] = set(roots)
    for node in nodes:
        if depends(node, active):
            active.update(node.outputs)
    return active


def depends(node: ir.Node, active: set[ir.Value | None]) -> bool:
    """Whether a node computes from an active value, in its subgraphs too; shapes do not count."""
    if node.op_type in ("Shape", "Size"):
        return False
    captured = (
        x
        for attribute in node.attributes.values()
        if attribute.type == ir.AttributeType.GRAPH
        for inner in attribute.as_graph().all_nodes()
        for x in inner.inputs
    )
    return not active.isdisjoint(node.inputs) or not active.isdisjoint(captured)


def operator_name(node: Node) -> str:
    """The key of a node's operator in a table of rules."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"


def _no_rule(node: ir.Node, where: str = "") -> str:
    name = operator_name(node)
    return (
        f"no rule for the cotangent of operator {name}{where}, at node {node.name!r}; "
        f'give it one with: onnxplain.export.register_vjp("{name}"), '
        "or to a method of relevances in its table in onnxplain.export.methods.lrp"
    )
