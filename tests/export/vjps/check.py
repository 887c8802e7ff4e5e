"""One check for every rule: the graph that it makes is the transposed Jacobian of the operator.

In float64, for random g and v, ⟨vjp(g), v⟩ is ⟨g, J v⟩ by central differences of the operator's own
forward. In float32, ONNX Runtime finds the same forward, the same cotangents after lowering, and
the same for several g at once (`export.vmap`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
from hypothesis import HealthCheck, settings

from onnxplain.export import VJPS, pull_back
from onnxplain.export.check import (
    Case,
    Checked,
    add_output,
    backward_model,
    builder_of,
    check,
    feeds_of,
    finished,
)
from onnxplain.export.lower import lower
from onnxplain.export.vmap import vmap
from onnxplain.reference.float64 import evaluator

from ..graphs import session

Array = np.ndarray
TARGETS = 2


def drawn(examples: int = 20) -> settings:
    """The same examples on every run."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def runtime(proto: onnx.ModelProto, feeds: dict[str, Array]) -> list[Array]:
    return session(proto.SerializeToString()).run(None, feeds)


def close(found: Array, expected: Array, tolerance: float, what: str) -> None:
    scale = max(float(np.abs(expected).max(initial=0)), 0.01)
    np.testing.assert_allclose(
        found, expected, rtol=tolerance, atol=tolerance * scale, err_msg=what
    )


def check_vjp(
    case: Case, float32: bool = True, tolerance: float = 1e-7, steps: Sequence[float] = (1e-3,)
) -> list[Array]:
    """The check; returns the cotangents of the active inputs for a g of normal numbers.

    Differences by one of the `steps` must agree: where one crosses a kink, a shorter one may not.
    """
    checked = check(case, evaluated, steps, tolerance, TARGETS)
    if float32:
        check_float32(case, checked)
    return checked.cotangents[0]


def evaluated(model: onnx.ModelProto) -> Callable[[Mapping[str, Array]], Sequence[Array]]:
    run = evaluator(model)
    return lambda feeds: run.run(None, dict(feeds))


def cotangent_of(case: Case, *gs: Array) -> Array:
    """The cotangent of the first active input, given those of the outputs; nothing is checked."""
    dtype = ir.DataType.from_numpy(case.arrays()[0].dtype)
    return evaluator(backward_model(case, dtype)).run(None, feeds_of(case.arrays(), gs))[0]


def check_float32(case: Case, checked: Checked) -> None:
    """As ONNX Runtime has it: forward, and cotangents for all g at once, lowered."""
    model = case.forward_model(ir.DataType.FLOAT)
    graph = model.graph
    graph.outputs[:] = [graph.outputs[k] for k in case.seeded]
    op = builder_of(model)
    wanted = list(graph.inputs)
    several = [
        op.builder.input(f"g{j}", y.dtype, ["targets", *(y.shape or [])])
        for j, y in enumerate(graph.outputs)
    ]
    seeds = {
        y: op.Squeeze(op.Slice(g, [0], [1], [0]), [0])
        for y, g in zip(graph.outputs, several, strict=True)
    }
    head = len(graph)
    cotangents = pull_back(op, seeds, wanted, VJPS)
    backward = list(graph)[head:]
    K = op.Shape(several[0], start=0, end=1)
    mapped = vmap(op, backward, dict(zip(seeds.values(), several, strict=True)), K)
    lower(op, list(graph)[head:])
    for i, (cotangent, x) in enumerate(zip(cotangents, wanted, strict=True)):
        value = mapped[cotangent]
        add_output(model, value, f"cotangent{i}")
        graph.outputs[-1].shape = ir.Shape(["targets", *(x.shape or [])])
    proto = finished(model)
    stacked = [np.stack(of_output) for of_output in zip(*checked.given, strict=True)]
    feeds = {k: v.astype(np.float32) for k, v in feeds_of(case.arrays(), stacked).items()}
    results = runtime(proto, feeds)
    for y, expected in zip(results, checked.outputs, strict=False):
        close(y, expected, 1e-4, f"{case}: the forward pass in float32")
    for i, cotangent in enumerate(results[len(checked.outputs) :]):
        expected = np.stack([result[i] for result in checked.cotangents])
        close(cotangent, expected, 1e-3, f"{case}: {TARGETS} cotangents at once, in float32")


def distinct(rng: np.random.Generator, shape: Sequence[int], spread: float = 3.0) -> Array:
    """Numbers between ±spread, evenly apart, none of them 0: for operators with a kink or a tie."""
    count = int(np.prod(shape))
    steps = rng.permutation(count) - count // 2 + 0.5
    return (steps * 2 * spread / max(count, 1)).reshape(shape)
