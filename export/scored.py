"""What a network's head makes of the tokens of earlier layers than the last."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.attended import Attended
from onnxplain.export.autodiff import between
from onnxplain.export.provenance import named_after, origin
from onnxplain.export.replay import replay
from onnxplain.export.subgraphs import alike


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
                mapped = replay(op, [node], mapped)
            for y in node.outputs:
                alike(mapped[y], y)
        pooled = attended.pooled
        asked = weights if pooled is None else mapped.get(pooled, pooled)
        yield mapped.get(logits, logits), asked
