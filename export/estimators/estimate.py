"""From an explain graph to one whose explanation an estimator puts together."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.contract.explain import PULLBACK, Preprocessing
from onnxplain.contract.precision import ARRIVED
from onnxplain.export.backward import Added
from onnxplain.export.composites import spell_out
from onnxplain.export.count import at_usual_size, multiply_adds
from onnxplain.export.estimators.asked import Asked
from onnxplain.export.estimators.estimator import Estimator, Sampling
from onnxplain.export.heads import arrived
from onnxplain.export.loops import check_together
from onnxplain.export.objectives import Objective
from onnxplain.export.objectives.sweep import scalar_of
from onnxplain.export.tensors import dims


def estimate(
    model: ir.Model,
    added: Added,
    estimator: Estimator,
    values: Sampling,
    objective: Objective,
    preprocessing: Preprocessing,
) -> int:
    """Put an estimator's explanation in the place of the pullback, its inputs and outputs beside.

    Args:
        added: the graph with its backward pass.
        values: of the estimator's parameters.
        objective: what is explained.

    Returns:
        What it costs, in multiply-adds per image.

    Raises:
        SourceError: the estimator asks for the objective's value, which only has a gradient; or
            several samples at once cannot be asked for.
    """
    spell_out(model)  # before the graph becomes the body of a loop
    op, graph = added.op, model.graph
    _mark(op, graph)
    once = multiply_adds(at_usual_size(model)) + added.looped
    image, pullback = graph.inputs[0], graph.outputs[-1]
    check_together(values["chunk"], added.hot is not None, image, graph)
    inputs = {
        name: op.builder.input(
            name,
            image.dtype,
            [ir.SymbolicDim(name) if one.several else dims(image)[0], *dims(image)[1:]],
        )
        for name, one in estimator.inputs(values).items()
    }
    scalar = scalar_of(op, objective, added.hot)
    pullback.name = f"{PULLBACK}.of_one_image"
    asked = Asked(
        op,
        image,
        pullback,
        scalar,
        added.fixed,
        preprocessing,
        inputs,
        values["chunk"],
        list(graph),
    )
    explanation, others = estimator.emit(asked, values)
    graph.outputs.pop()
    leading = dims(scalar)
    for name, value in others.items():
        _put_out(graph, value, name, leading, image)
    _put_out(graph, explanation, PULLBACK, dims(pullback), image)
    return round(once * estimator.explanations(values))


def _mark(op: OpBuilder, graph: ir.Graph) -> None:
    """An estimator's answers need not be linear in the pullback."""
    if any(ARRIVED in (node.name or "") for node in graph):
        return
    pullback = graph.outputs.pop()
    passed = arrived(op, pullback)
    passed.shape, passed.type = pullback.shape, pullback.type
    graph.outputs.append(passed)


def _put_out(
    graph: ir.Graph, value: ir.Value, name: str, sizes: Sequence[object], like: ir.Value
) -> None:
    value.name, value.shape, value.type = name, ir.Shape(sizes), like.type  # type: ignore[arg-type]
    graph.outputs.append(value)
