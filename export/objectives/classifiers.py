"""The objectives of classifiers, by their gradient at the logits y [N, classes].

The target's one-hot vector e_t, and with it the gradient, is [N, classes] or [N, K, classes].
"""

from __future__ import annotations

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.objectives.objective import Objective, register_objective
from onnxplain.export.tensors import rank


def logit(op: OpBuilder, logits: ir.Value, hot: ir.Value) -> ir.Value:
    """y_t: e_t."""
    return hot


def cross_entropy(op: OpBuilder, logits: ir.Value, hot: ir.Value) -> ir.Value:
    """log softmax(y)_t: e_t − softmax(y)."""
    y = op.Unsqueeze(logits, [1]) if rank(hot) == 3 else logits
    return op.Sub(hot, op.Softmax(y, axis=-1))


def energy(op: OpBuilder, logits: ir.Value, hot: ir.Value) -> ir.Value:
    """½ Σ y²: y."""
    if rank(hot) == 3:
        return op.Expand(op.Unsqueeze(logits, [1]), op.Shape(hot))
    return op.Identity(logits)


def its_logit(op: OpBuilder, logits: ir.Value, hot: ir.Value) -> ir.Value:
    """y_t."""
    y = op.Unsqueeze(logits, [1]) if rank(hot) == 3 else logits
    return op.ReduceSum(op.Mul(y, hot), [-1], keepdims=0)


def log_probability(op: OpBuilder, logits: ir.Value, hot: ir.Value) -> ir.Value:
    """log softmax(y)_t."""
    return its_logit(op, op.LogSoftmax(logits, axis=-1), hot)


def half_square(op: OpBuilder, logits: ir.Value, hot: ir.Value) -> ir.Value:
    """½ Σ y²."""
    half = op.Mul(op.ReduceSum(op.Mul(logits, logits), [-1], keepdims=0), 0.5)
    if rank(hot) == 2:
        return half
    return op.Expand(op.Unsqueeze(half, [1]), op.Shape(hot, start=0, end=2))


LOGIT = register_objective(Objective("logit", "a class's logit", cotangent=logit, scalar=its_logit))
register_objective(
    Objective(
        "cross-entropy",
        "a class's log-probability",
        cotangent=cross_entropy,
        scalar=log_probability,
    )
)
register_objective(
    Objective("energy", "half the sum of all logits' squares", cotangent=energy, scalar=half_square)
)
