"""What several objectives read of outputs: logits before a final activation, one class's row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.autodiff import operator_name
from onnxplain.export.objectives.objective import Output, hold
from onnxplain.export.objectives.structure import MOVED, axis_before
from onnxplain.export.operators import Kind, row_of
from onnxplain.export.tensors import axis_of, integers, rank


def or_of(others: Sequence[Output]) -> str:
    """What is said of outputs that would have done as well as the one that is taken."""
    names = " or ".join(output.name for output in others)
    return f" (for {names} instead, say output=)" if names else ""


def counted(classes: int) -> str:
    """How many, in words."""
    return "1 class" if classes == 1 else f"{classes} classes"


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
        value: what the activation was given; the output itself where there is none.
        moves: the nodes that move its elements to the output's axes.
        activation: "sigmoid", "softmax" or "".
    """

    value: ir.Value
    moves: Sequence[ir.Node] = ()
    activation: str = ""

    def logits(self, op: OpBuilder) -> ir.Value:
        """What came before the activation, with the output's axes."""
        x = self.value
        for node in self.moves:
            attributes = {name: each.value for name, each in node.attributes.items()}
            x = getattr(op, node.op_type)(x, *node.inputs[1:], **attributes)
            x.shape = node.outputs[0].shape
        return x


def is_channels(value: ir.Value, axis: int) -> bool:
    """Whether an axis is that of a convolution's channels, through a Sigmoid and what moves
    elements."""
    while (node := value.producer()) is not None and node.inputs:
        if (x := node.inputs[0]) is None or node.op_type not in (*MOVED, "Sigmoid"):
            return axis == 1 and row_of(operator_name(node)).kind is Kind.CONVOLUTION
        before = axis if node.op_type == "Sigmoid" else axis_before(node, value, axis)
        if before is None:
            return False
        value, axis = x, before
    return False


def ending(output: ir.Value, axis: int | None) -> Ending:
    """The Sigmoid, or the Softmax along an axis, that an output ends in, if it does."""
    value, moves = output, list[ir.Node]()
    while (node := value.producer()) is not None and node.inputs:
        if (x := node.inputs[0]) is None:
            break
        if node.op_type == "Sigmoid":
            return Ending(x, moves, "sigmoid")
        if node.op_type in ("Softmax", "LogSoftmax"):
            along = axis == axis_of(node, x) + rank(x)
            return Ending(x, moves, "softmax") if along else Ending(output)
        if node.op_type not in MOVED:
            break
        axis = None if axis is None else axis_before(node, value, axis)
        value, moves = x, [node, *moves]
    return Ending(output)
