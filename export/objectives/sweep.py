"""From an objective to the cotangents of the network's outputs: the first sweep, by gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.contract.explain import LOGITS
from onnxplain.contract.objective import OBJECTIVE, SEED
from onnxplain.errors import OnnxplainError, SourceError
from onnxplain.export.autodiff import dependents, swept
from onnxplain.export.heads import arrived
from onnxplain.export.objectives.objective import Fit, Objective, is_held
from onnxplain.export.operators import VJPS
from onnxplain.export.provenance import named_after
from onnxplain.export.subgraphs import operands
from onnxplain.export.tensors import dims


def add_objective(
    op: OpBuilder,
    objective: Objective,
    fit: Fit,
    inputs: Mapping[str, ir.Value],
    image: ir.Value,
    relevance: bool = False,
) -> tuple[dict[str, ir.Value], dict[ir.Value, ir.Value]]:
    """Emit an objective, and the gradient of its sum by what it reads of the network.

    Args:
        inputs: the graph's, by name.
        relevance: whether the sweep goes on with relevances: what each value y contributes to the
            objective s, y · ∂s/∂y.

    Returns:
        The objective's outputs by name, of which `objective` [N] is one, and the cotangent, or the
        relevance, of each value of the network that it depends on.

    Raises:
        SourceError: it fails, is no float [N], or does not depend on the image.
        NoRuleError, RuleError: as `pull_back`.
    """
    graph = op.builder.graph
    forward = list(graph)
    with named_after(op, objective.name):
        emitted = _emitted(op, objective, fit, inputs)
    scalar, others = emitted if isinstance(emitted, tuple) else (emitted, {})
    nodes = list(graph)[len(forward) :]
    if not isinstance(scalar, ir.Value) or scalar.dtype != image.dtype or len(dims(scalar)) != 1:
        unknown = next((n for n in nodes if any(y.shape is None for y in n.outputs)), None)
        if unknown is not None:
            raise SourceError(
                f"objective {objective.name!r}: ONNX has no operator {unknown.op_type}, or none "
                f"that takes {', '.join(f'{x.dtype}{x.shape}' for x in operands(unknown) if x)} so"
            )
        found = f"{scalar.dtype}{scalar.shape}" if isinstance(scalar, ir.Value) else repr(scalar)
        raise SourceError(
            f"objective {objective.name!r} gives {found}, where one {image.dtype} per sample, [N], "
            "is wanted"
        )
    held = {y for node in nodes if is_held(node, relevance) for y in node.outputs}
    read = _read(nodes, dependents(forward, [image]))
    reached = [x for x in read if scalar in dependents(nodes, [x], held)]
    seed = op.Expand(op.CastLike(1.0, image), op.Shape(image, start=0, end=1))
    seed.name, seed.shape = SEED, scalar.shape
    arrived = swept(op, {scalar: seed}, reached, VJPS, nodes, held)
    found_out = {x: g for x, g in zip(reached, arrived, strict=True) if g is not None}
    if not found_out:
        raise SourceError(f"objective {objective.name!r} does not depend on the image")
    if relevance:
        found_out = {x: op.Mul(x, g) for x, g in found_out.items()}
    return {**others, OBJECTIVE: scalar}, found_out


def _emitted(op: OpBuilder, objective: Objective, fit: Fit, inputs: Mapping[str, ir.Value]) -> Any:
    assert objective.emit is not None
    try:
        return objective.emit(op, fit, inputs)
    except OnnxplainError:
        raise
    except Exception as error:  # of any kind: it may be the user's own code
        outputs = ", ".join(
            f"{one.name} [{', '.join(map(str, ['N', *one.sizes]))}]" for one in fit.outputs.values()
        )
        raise SourceError(
            f"objective {objective.name!r} fails: {type(error).__name__}: {error}; it is given the "
            f"outputs {outputs}"
        ) from error


def scalar_of(op: OpBuilder, objective: Objective, hot: ir.Value | None) -> ir.Value:
    """What is explained, [N] or [N, K], of a graph whose outputs are complete.

    Args:
        hot: of a classifier the one-hot vector of the target.

    Raises:
        SourceError: the objective has a gradient alone.
    """
    named = {output.name: output for output in op.builder.graph.outputs}
    if hot is None:
        return named[OBJECTIVE]
    if objective.scalar is None:
        raise SourceError(
            f"objective {objective.name!r} tells its gradient alone; give it a `scalar` too"
        )
    scalar = objective.scalar(op, named[LOGITS], arrived(op, hot))
    scalar.type, scalar.shape = hot.type, ir.Shape(dims(hot)[:-1])
    return scalar


def _read(nodes: Sequence[ir.Node], active: set[ir.Value | None]) -> list[ir.Value]:
    """The values of the network that nodes read, each once."""
    return list(dict.fromkeys(x for node in nodes for x in operands(node) if x and x in active))
