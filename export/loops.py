"""A number of turns that is known: one `Loop` of ONNX's, whose body reads weights where they are.

A file does not grow with the turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.building import Builder
from onnxplain.errors import SourceError
from onnxplain.export.subgraphs import bodies
from onnxplain.export.tensors import dims, integers

Turn: TypeAlias = Callable[
    [OpBuilder, ir.Value, Sequence[ir.Value]], tuple[Sequence[ir.Value], Sequence[ir.Value]]
]
"""`turn(op, number, states)`, of which `op` emits into the body: the states that the next turn
starts from, and what is kept of this one."""


def looped(
    op: OpBuilder, turns: int, start: Sequence[ir.Value], turn: Turn, name: str
) -> tuple[list[ir.Value], list[ir.Value]]:
    """So many turns, from values to values of the same shapes; and what each kept, [turns, …].

    One turn needs no `Loop`.
    """
    if turns == 1:
        ends, kept = turn(op, integers(op, np.array(0)), start)
        return list(ends), [op.Unsqueeze(value, [0]) for value in kept]
    graph = op.builder.graph
    number = ir.val("turn", ir.DataType.INT64, [])
    going = ir.val("going", ir.DataType.BOOL, [])
    states = [ir.val(f"state_{i}", value.dtype, value.shape) for i, value in enumerate(start)]
    body = ir.Graph(
        inputs=[number, going, *states],
        outputs=[],
        nodes=[],
        opset_imports=dict(graph.opset_imports),
        name=f"{name}s",
    )
    inner = Builder(body, parent=op.builder)
    inner.push_module(name)
    ends, kept = turn(inner.op, number, states)
    for end, state in zip(ends, states, strict=True):
        end.type, end.shape = state.type, state.shape
    body.outputs.extend([inner.op.Identity(going), *ends, *kept])
    count = len(ends) + len(kept)
    made = op.builder.call_op("Loop", [turns, True, *start], {"body": body}, outputs=count)
    results = [made] if isinstance(made, ir.Value) else list(made)
    for result, state in zip(results, states, strict=False):
        result.type, result.shape = state.type, state.shape
    for result, value in zip(results[len(ends) :], kept, strict=True):
        behind = list(value.shape) if value.shape is not None else []
        result.type, result.shape = value.type, ir.Shape([turns, *behind])
    return results[: len(ends)], results[len(ends) :]


def check_together(chunk: int, of_class: bool, image: ir.Value, nodes: Iterable[ir.Node]) -> None:
    """Raise SourceError unless nodes can compute so many samples of an image as one batch."""
    if chunk == 1:
        return
    if not of_class or isinstance(dims(image)[0], int):
        why = "an open batch" if of_class else "classes"
        raise SourceError(f"chunk above 1 explains {why} alone; leave it out")
    if any(map(bodies, nodes)):
        raise SourceError(
            "chunk above 1 puts samples together, of which each may decide an If, Loop or Scan by "
            "itself; leave it out"
        )


def chunks(samples: int, most: int) -> int:
    """How many of the samples run at once: the greatest divisor of their number up to `most`."""
    return max(n for n in range(1, min(samples, most) + 1) if samples % n == 0)
