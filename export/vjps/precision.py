"""How the operators compute in a graph of halves: `runtime.conversion` is told by the file."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from onnxplain.contract.precision import OperatorPrecision

FLOAT32 = frozenset(
    {
        *("Exp", "Log", "Pow", "Sqrt", "Reciprocal", "Softplus", "Softmax", "LogSoftmax"),
        *("ReduceSum", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceSumSquare"),
        *("ReduceLogSum", "ReduceLogSumExp", "ReduceProd", "CumSum"),
        *("LayerNormalization", "InstanceNormalization", "GroupNormalization"),
        *("RMSNormalization", "LpNormalization", "MeanVarianceNormalization", "LRN"),
        *("GlobalAveragePool", "GlobalLpPool", "LpPool", "TopK", "OneHot"),
    }
)
"""Exponentials and powers, which overflow or lose the differences that go into them; statistics
and sums over many elements, whose terms are small beside the sum."""

FLOAT32_IN_BFLOAT16 = frozenset({"ConvTranspose", "HardSwish", "Mish"})
"""TensorRT-RTX (1.7) refuses them in bfloat16."""

FOLLOW = frozenset(
    {
        *("Abs", "Add", "Clip", "Div", "Equal", "Erf", "Greater", "GreaterOrEqual", "Less"),
        *("LessOrEqual", "Max", "Min", "Mul", "Neg", "Relu", "Sigmoid", "Sign", "Sub", "Sum"),
        *("Tanh", "Where", "ReduceMax", "ReduceMin", "MaxPool", "AveragePool", "Resize"),
        *("Concat", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Slice"),
        *("Split", "Squeeze", "Transpose", "Unsqueeze"),
    }
)
"""Elementwise ones and those that move elements: a cast before or after one costs more than the
operation in float32."""

FLOAT32_INPUTS = {"Resize": (1, 2), "QuantizeLinear": (1,), "DequantizeLinear": (1,)}
"""Inputs that the standard, or a scale's meaning, has in float32."""


def operator_precision(model: ir.Model) -> OperatorPrecision:
    """Of the operators of a finished graph, and of its functions' bodies."""
    bodies = [model.graph, *model.functions.values()]
    present = {node.op_type for body in bodies for node in body}

    def of(known: Iterable[str]) -> tuple[str, ...]:
        return tuple(sorted(present.intersection(known)))

    inputs = {name: FLOAT32_INPUTS[name] for name in of(FLOAT32_INPUTS)}
    return OperatorPrecision(of(FLOAT32), of(FLOAT32_IN_BFLOAT16), of(FOLLOW), inputs)
