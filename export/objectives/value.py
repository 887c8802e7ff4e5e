"""Regression: a number that the network puts out (an age, an angle, a keypoint's coordinate)."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.contract.objective import EXPLAINED_CLASS, INDEX
from onnxplain.export.heads import chosen_class
from onnxplain.export.objectives.objective import (
    Emitted,
    Fit,
    Input,
    Network,
    Objective,
    Settings,
    register_objective,
)
from onnxplain.export.objectives.reading import one_hot_row, or_of


def fits(network: Network, settings: Settings) -> Fit | str:
    found = [one for one in network.outputs if sum(size != 1 for size in one.sizes) <= 1]
    if not found:
        return "no output is [N], [N, 1] or [N, K]"
    output, *others = found
    count = max([1, *output.sizes])
    axes = ["value" if size == count else "1" for size in output.sizes]
    axes.insert(output.batch, "batch")
    numbers = f"{count} numbers" if count > 1 else "one number"
    why = f"{output.name} is {numbers} per image{or_of(others)}"
    sure = count == 1 and not others
    axes_of = {output.name: axes}
    return Fit({"values": output}, axes_of, why, sure, count, count, nonzero=["direction"])


def emit(op: OpBuilder, fit: Fit, inputs: Mapping[str, ir.Value]) -> Emitted:
    """d · y_t."""
    values = fit.outputs["values"].with_batch_first(op)
    row = op.Reshape(values, [-1, fit.classes])
    chosen = chosen_class(op, row, inputs["target"])
    value = op.ReduceSum(op.Mul(row, one_hot_row(op, chosen, fit.classes, row)), [1], keepdims=0)
    return op.Mul(value, inputs["direction"]), {EXPLAINED_CLASS: chosen}


register_objective(
    Objective(
        "value",
        "one of the numbers of a regression",
        fits,
        emit,
        (
            Input(
                "target",
                "which of the numbers, from 0; -1 is the greatest, -2 the next",
                INDEX,
                0,
            ),
            Input("direction", "1 for what raises the number, -1 for what lowers it", default=1),
        ),
        whole=True,
    )
)
