"""Embeddings: how close an image's vector is to that of a query (another image, a text, a face)."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.objectives.objective import (
    Fit,
    Input,
    Network,
    Objective,
    Setting,
    Settings,
    hold,
    register_objective,
)
from onnxplain.export.objectives.reading import or_of

_TINY = 1e-12


def fits(network: Network, settings: Settings) -> Fit | str:
    found = [one for one in network.outputs if sum(size != 1 for size in one.sizes) == 1]
    if not found:
        return "no output is [N, D]"
    output, *others = found
    width = max(output.sizes)
    axes = ["vector" if size == width else "1" for size in output.sizes]
    axes.insert(output.batch, "batch")
    said = {"similarity": "cosine", **settings}
    return Fit(
        {"vector": output},
        {output.name: axes},
        f"{output.name} is a vector of {width} numbers per image{or_of(others)}",
        shapes={"query": [width]},
        settings=said,
        nonzero=["query"] if said["similarity"] == "cosine" else [],
    )


def emit(op: OpBuilder, fit: Fit, inputs: Mapping[str, ir.Value]) -> ir.Value:
    """⟨y, q⟩, or ⟨y, q⟩ / (‖y‖ ‖q‖); the lengths are constants of relevances, of which there were
    none otherwise: they would add up to 0."""
    query = inputs["query"]
    (size,) = fit.shapes["query"]
    vector = op.Reshape(fit.outputs["vector"].with_batch_first(op), [-1, size])
    if fit.settings["similarity"] == "dot":
        return op.ReduceSum(op.Mul(vector, query), [1], keepdims=0)
    top = op.ReduceMax(op.Abs(query), [1], keepdims=1)  # whose squares neither vanish nor overflow
    query = op.Div(query, op.Where(op.Greater(top, 0.0), top, 1.0))
    dot = op.ReduceSum(op.Mul(vector, query), [1], keepdims=0)
    norms = [op.Sqrt(op.ReduceSum(op.Mul(v, v), [1], keepdims=0)) for v in (vector, query)]
    lengths = hold(op, op.Mul(*norms), relevance_only=True)
    return op.Div(dot, op.Max(lengths, _TINY))


register_objective(
    Objective(
        "embedding",
        "the similarity of an embedding to a query",
        fits,
        emit,
        (Input("query", "the vector to compare with"),),
        (Setting("similarity", "cosine, or the dot product", ("cosine", "dot")),),
        whole=True,
    )
)
