"""What a network's head makes of the tokens of earlier layers than the last."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.attended import Attended
from onnxplain.export.autodiff import between
from onnxplain.export.provenance import named_after, origin


def scored(
    op: OpBuilder, attended: Attended, logits: ir.Value
) -> Iterator[tuple[ir.Value, ir.Value]]:
    """Of each layer, the logits that the head gives its tokens, and the attention that is asked:
    the layer's own, or that by which the head pools the tokens."""
    *earlier, last = attended.blocks or [logits]
    head = between(op.builder.graph, [last], [logits])
    for tokens, weights in zip([*earlier, last], attended.weights, strict=True):
        mapped = {last: tokens}
        for node in head if tokens is not last else ():
            with named_after(op, f"layers/{origin(node)}"):
                mapped.update(zip(node.outputs, _again(op, node, mapped), strict=True))
        pooled = attended.pooled
        asked = weights if pooled is None else mapped.get(pooled, pooled)
        yield mapped.get(logits, logits), asked


def _again(op: OpBuilder, node: ir.Node, mapped: dict[ir.Value, ir.Value]) -> list[ir.Value]:
    """What a node makes of other values of the same shapes and dtypes."""
    inputs = [x if x is None else mapped.get(x, x) for x in node.inputs]
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    version = op.builder.graph.opset_imports[node.domain]
    made = op.builder.call_op(
        node.op_type, inputs, attributes, node.domain, version, outputs=len(node.outputs)
    )
    outputs = [made] if isinstance(made, ir.Value) else list(made)
    for y, like in zip(outputs, node.outputs, strict=True):
        y.shape, y.type = like.shape, like.type
    return outputs
