"""How the operators compute in a graph of halves: `runtime.conversion` is told by the file."""

from __future__ import annotations

import onnx_ir as ir

from onnxplain.contract.precision import OperatorPrecision
from onnxplain.export.operators import Half, row_of


def operator_precision(model: ir.Model) -> OperatorPrecision:
    """Of the operators of a finished graph, and of its functions' bodies."""
    bodies = [model.graph, *model.functions.values()]
    present = sorted({node.op_type for body in bodies for node in body})

    def of(half: Half) -> tuple[str, ...]:
        return tuple(name for name in present if row_of(name).half is half)

    return OperatorPrecision(
        of(Half.FLOAT32),
        of(Half.FLOAT32_IN_BFLOAT16),
        of(Half.FOLLOWS),
        {name: inputs for name in present if (inputs := row_of(name).float32_inputs)},
    )
