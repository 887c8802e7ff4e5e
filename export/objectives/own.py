"""An objective of one's own, as a function of the outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.objectives.objective import OBJECTIVES, Fit, Network, Objective, Settings


def of_function(function: Callable[..., Any]) -> Objective:
    """The objective that `function(op, outputs)` emits: one float per sample, [N].

    `op` emits nodes, and `outputs` are the network's by name, each with its batch axis first.
    """

    def fits(network: Network, settings: Settings) -> Fit | str:
        outputs = {output.name: output for output in network.outputs}
        if not outputs:
            return "no output has a batch axis that can be told"
        return Fit(outputs, {}, f"the function {name} says so")

    def emit(op: OpBuilder, fit: Fit, inputs: Mapping[str, ir.Value]) -> Any:
        return function(op, {name: one.with_batch_first(op) for name, one in fit.outputs.items()})

    name = getattr(function, "__name__", "own").strip("<>")
    name = f"own {name}" if name in OBJECTIVES else name
    return Objective(name, "a function of the outputs", fits, emit)
