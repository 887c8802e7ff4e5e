"""The bodies of control flow, `If`, `Loop` and `Scan`: what they read, and how new ones are made.

A node is one of ONNX's, or what a rule sees of it (`onnxplain.export.autodiff.Node`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.building import Builder

CONTROL_FLOW = ("If", "Loop", "Scan")


def bodies(node: Any) -> list[ir.Graph]:
    """The subgraphs of control flow."""
    attributes = node.attributes.values()
    return [a.as_graph() for a in attributes if a.type == ir.AttributeType.GRAPH]


def operands(node: Any) -> Sequence[ir.Value | None]:
    """What a node reads: its inputs, and behind them what its bodies read from around them."""
    inputs: Sequence[ir.Value | None] = node.inputs
    return [*inputs, *captured(node)] if bodies(node) else inputs


def captured(node: Any) -> list[ir.Value]:
    """What the bodies of a node read from around them, each once."""
    return list(dict.fromkeys(x for body in bodies(node) for x in read_around(body)))


def read_around(body: ir.Graph) -> list[ir.Value]:
    """What a subgraph, and those within it, read from around it, each once."""
    graphs = [body, *body.subgraphs()]
    within = {v for graph in graphs for v in (*graph.inputs, *graph.initializers.values())}
    within.update(y for node in body.all_nodes() for y in node.outputs)
    read = (x for node in body.all_nodes() for x in node.inputs)
    return list(dict.fromkeys(x for x in read if x is not None and x not in within))


def carried(node: Any, body: ir.Graph) -> list[tuple[ir.Value, ir.Value]]:
    """What goes from round to round: each value as a round has it, and as it leaves it."""
    scanned = node.attributes.get_int("num_scan_inputs", 0)
    lead = len(body.outputs) - len(node.outputs)  # a Loop's condition
    states = body.inputs[2 * lead : len(node.inputs) - scanned]  # behind its number and condition
    return list(zip(states, body.outputs[lead:], strict=False))


def put_instead(body: ir.Graph, instead: Mapping[ir.Value, ir.Value]) -> None:
    """Replace values in all that a body, and those within it, read."""
    for node in body.all_nodes():
        for i, x in enumerate(node.inputs):
            if x is not None and x in instead:
                node.replace_input_with(i, instead[x])


def new_body(op: OpBuilder, name: str) -> tuple[OpBuilder, ir.Graph]:
    """An empty body, and a builder of it."""
    outer = op.builder.graph
    name = f"{outer.name}.{name}_{len(outer)}"
    body = ir.Graph([], [], nodes=[], opset_imports=dict(outer.opset_imports), name=name)
    builder = Builder(body, parent=op.builder)
    builder.push_module(name)
    return builder.op, body


def compute_again(
    op: OpBuilder, body: ir.Graph, given: Sequence[ir.Value | None]
) -> tuple[list[ir.Node], list[ir.Value]]:
    """A copy of a body's nodes, behind those of the graph that `op` builds, of what it is `given`
    for its inputs; and the copy's outputs."""
    graph = op.builder.graph
    copy = body.clone(allow_outer_scope_values=True)
    for inner, outer in zip(copy.inputs, given, strict=True):
        assert outer is not None
        ir.convenience.replace_all_uses_with(inner, outer)
    outputs, nodes = list(copy.outputs), list(copy)
    copy.outputs.clear()
    copy.remove(nodes)
    for node in nodes:
        for y in node.outputs:
            y.name = f"{graph.name}.{y.name}" if y.name else y.name
    graph.extend(nodes)
    return nodes, outputs


def put_out(op: OpBuilder, values: Sequence[ir.Value]) -> None:
    """Make values the outputs of a body, which loses what none of them needs."""
    body = op.builder.graph
    body.outputs.extend(alike(op.Identity(value), value) for value in values)
    for node in reversed(body):
        if not any(y.uses() or y.is_graph_output() for y in node.outputs):
            body.remove(node, safe=True)


def alike(value: ir.Value, like: ir.Value) -> ir.Value:
    """A value, said to be of the type and shape of another."""
    value.type, value.shape = like.type, like.shape
    return value
