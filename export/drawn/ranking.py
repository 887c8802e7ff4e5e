"""The likeliest classes as outputs."""

from __future__ import annotations

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.contract.explain import LOGITS
from onnxplain.contract.picture import TOP_CLASSES, TOP_PROBABILITIES
from onnxplain.contract.precision import DRAWING
from onnxplain.errors import SourceError
from onnxplain.export.provenance import named_after
from onnxplain.export.tensors import dims, size_of


def add_ranking(op: OpBuilder, count: int, activation: str) -> None:
    """Give a classifier's explain graph the outputs `top_classes` and `top_probabilities`.

    Args:
        count: of classes, the likeliest first.
        activation: what makes the logits probabilities, "softmax" or "sigmoid".

    Raises:
        SourceError: there are fewer classes.
    """
    graph = op.builder.graph
    logits = next(y for y in graph.outputs if y.name == LOGITS)
    if count > (classes := size_of(logits, 1)):
        raise SourceError(f"topk is {count}, and the network has {classes} classes")
    with named_after(op, DRAWING):
        of_all = op.Softmax(logits, axis=1) if activation == "softmax" else op.Sigmoid(logits)
        _, ranking = op.TopK(logits, [count], _outputs=2)
        probabilities = op.Cast(op.GatherElements(of_all, ranking, axis=1), to=ir.DataType.FLOAT)
        ranking = op.Identity(ranking)
    shape = ir.Shape([dims(logits)[0], count])
    for value, name, dtype in (
        (ranking, TOP_CLASSES, ir.DataType.INT64),
        (probabilities, TOP_PROBABILITIES, ir.DataType.FLOAT),
    ):
        value.name, value.shape, value.dtype = name, shape.copy(), dtype
        graph.outputs.append(value)
