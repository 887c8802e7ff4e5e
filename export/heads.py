"""The two ends of the backward pass: from a target to the cotangent of the logits, and from the
cotangent of the image to the graph's output."""

from __future__ import annotations

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.tensors import size_of


def one_hot(op: OpBuilder, logits: ir.Value, target: ir.Value) -> ir.Value:
    """The cotangent of the logits [N, classes]: 1 at each image's target class, else 0.

    A negative target counts from the top of the ranking: -1 is the predicted class. The classes
    in falling order, indexed by -target - 1, hold the answer, and where the target is not
    negative that index is one from the end, in range for just the same classes: a target outside
    [-classes, classes) is an error of the runtime's, never a silent zero.

    Args:
        target: int64 [N], or [N, K].

    Returns:
        [N, classes], or [N, K, classes].
    """
    classes = size_of(logits, 1)
    _, ranking = op.TopK(logits, [classes], _outputs=2)
    if target.shape is not None and len(target.shape) == 1:
        by_rank = op.GatherElements(ranking, op.Unsqueeze(_rank(op, target), [1]), axis=1)
        by_rank = op.Squeeze(by_rank, [1])
    else:
        by_rank = op.GatherElements(ranking, _rank(op, target), axis=1)
    chosen = op.Where(op.Less(target, 0), by_rank, target)
    return op.CastLike(op.OneHot(chosen, classes, [0.0, 1.0], axis=-1), logits)


def _rank(op: OpBuilder, target: ir.Value) -> ir.Value:
    return op.Sub(-1, target)
