"""Nodes of a graph once more, on other values."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.autodiff import Node
from onnxplain.export.subgraphs import operands, put_instead


def again(
    op: OpBuilder,
    node: Node,
    inputs: Sequence[ir.Value | None],
    name: str | None = None,
    **changed: object,
) -> list[ir.Value]:
    """What a node makes of other inputs, by its own attributes but for those that are `changed`.

    Args:
        name: of the new node; the builder's own by default.
    """
    attributes = {name: attribute.value for name, attribute in node.attributes.items()} | changed
    version = op.builder.graph.opset_imports[node.domain]
    made = op.builder.call_op(
        node.op_type,
        list(inputs),
        attributes,
        domain=node.domain,
        version=version,
        outputs=len(node.outputs),
        name=name,
    )
    return [made] if isinstance(made, ir.Value) else list(made)


def replay(
    op: OpBuilder, nodes: Sequence[Node], replaced: dict[ir.Value, ir.Value]
) -> dict[ir.Value, ir.Value]:
    """Repeat the nodes that depend on the replaced values, on their replacements.

    Returns:
        The replaced values and all that is computed from them → what stands in their place.
    """
    values = dict(replaced)
    for node in nodes:
        if any(y in values for y in node.outputs) or not any(x in values for x in operands(node)):
            continue
        inputs = [x if x is None else values.get(x, x) for x in node.inputs]
        inner = {
            name: _on(attribute.as_graph(), values)
            for name, attribute in node.attributes.items()
            if attribute.type == ir.AttributeType.GRAPH
        }
        outputs = again(op, node, inputs, node.name, **inner)
        for y, made in zip(node.outputs, outputs, strict=True):
            if inner:  # no shape is inferred behind a body
                made.type, made.shape = y.type, made.shape or y.shape
        values.update(zip(node.outputs, outputs, strict=True))
    return values


def _on(body: ir.Graph, values: dict[ir.Value, ir.Value]) -> ir.Graph:
    """A copy of a body on the values' replacements."""
    copy = body.clone(allow_outer_scope_values=True)
    put_instead(copy, values)
    return copy
