"""What several objectives read of outputs: logits before a final activation, one class's row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.canonical.ends import behind_reshapes
from onnxplain.export.objectives.objective import hold
from onnxplain.export.tensors import axis_of, integers, rank, reshape_like


def in_range(op: OpBuilder, index: ir.Value, count: int, like: ir.Value) -> ir.Value:
    """Indices [N], looked up among the numbers below `count`: one that is outside is an error of
    the runtime's, never a silent zero. `like` is [N, …]."""
    rows = op.Concat(op.Shape(like, start=0, end=1), [1], axis=0)
    known = op.Expand(integers(op, np.arange(count)[None]), rows)
    return op.Squeeze(op.GatherElements(known, op.Unsqueeze(index, [1]), axis=1), [1])


def one_hot_row(op: OpBuilder, index: ir.Value, count: int, like: ir.Value) -> ir.Value:
    """Indices [N] as rows [N, count] of the dtype of `like`: 1 at the index, else 0."""
    places = integers(op, np.arange(count))
    return op.CastLike(op.Equal(op.Unsqueeze(index, [1]), places), like)


def mean_over(op: OpBuilder, values: ir.Value, weights: ir.Value) -> ir.Value:
    """The weighted mean of each row of [N, …], the weights held constant; the plain mean of a row
    where all of them are 0."""
    total = op.ReduceSum(weights, [1], keepdims=1)
    weights = op.Where(op.Greater(total, 0.0), weights, 1.0)
    shares = hold(op, op.Div(weights, op.ReduceSum(weights, [1], keepdims=1)))
    return op.ReduceSum(op.Mul(values, shares), [1], keepdims=0)


@dataclass(frozen=True)
class Ending:
    """What an output ends in.

    Attributes:
        output: the output.
        value: what it is computed from.
        perm: how that is transposed to the output's axes; None for not at all.
        activation: "sigmoid", "softmax", or "" where the value is the output itself.
    """

    output: ir.Value
    value: ir.Value
    perm: Sequence[int] | None = None
    activation: str = ""

    def logits(self, op: OpBuilder) -> ir.Value:
        """What came before the activation, with the output's axes."""
        if self.perm is not None:
            return op.Transpose(self.value, perm=list(self.perm))
        alike = self.value.shape == self.output.shape
        return self.value if alike else reshape_like(op, self.value, self.output)


def ending(output: ir.Value, axis: int) -> Ending:
    """The Sigmoid, or the Softmax along an axis, that an output ends in, if it does."""
    perm, node = None, output.producer()
    if node is not None and node.op_type == "Transpose" and node.inputs[0] is not None:
        perm = node.attributes.get_ints("perm", list(reversed(range(rank(output)))))
        axis, node = perm[axis], node.inputs[0].producer()
    before = behind_reshapes(node) if perm is None else node
    if before is not None and before.op_type == "Sigmoid" and before.inputs[0] is not None:
        return Ending(output, before.inputs[0], perm, "sigmoid")
    x = node.inputs[0] if node is not None and node.inputs else None
    if node is None or x is None or node.op_type not in ("Softmax", "LogSoftmax"):
        return Ending(output, output)
    along = axis_of(node, x) == axis % rank(x) - rank(x)
    return Ending(output, x, perm, "softmax") if along else Ending(output, output)
