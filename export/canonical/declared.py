"""The sizes that a file declares: those that mean open, and those that it does not compute."""

from __future__ import annotations

import onnx_ir as ir


def open_unknown(graph: ir.Graph) -> None:
    """Sizes written as -1, and as 0 of an input, are open, in place."""
    for value in [*graph.inputs, *graph.outputs, *(y for node in graph for y in node.outputs)]:
        least = 1 if value in graph.inputs else 0
        if value.shape is not None and any(isinstance(n, int) and n < least for n in value.shape):
            value.shape = ir.Shape(
                [None if isinstance(n, int) and n < least else n for n in value.shape]
            )


def taken_off(graph: ir.Graph) -> dict[ir.Value, ir.Shape | None]:
    """The shapes that outputs are declared to have, which are theirs no longer."""
    declared = {y: y.shape for y in graph.outputs if y.producer() is not None}
    for y in declared:
        y.shape = None
    return declared


def merged(inferred: ir.Shape | None, declared: ir.Shape | None) -> ir.Shape | None:
    """What is known by either; where they differ, by inference."""
    if inferred is None or declared is None or len(inferred) != len(declared):
        return declared if inferred is None else inferred
    pairs = zip(inferred, declared, strict=True)
    return ir.Shape([b if isinstance(b, int) and not isinstance(a, int) else a for a, b in pairs])
