"""Boxes in the graph: their overlaps, and the best of each object (greedy suppression).

In plain operators of fixed shapes, not as ONNX's NonMaxSuppression: its result has as many rows as
it happens to have, which CUDA graphs and browsers refuse, of which there can be no K for K targets,
and OpenVINO and TensorRT order and pad otherwise than ONNX Runtime.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.tensors import dims, integers, is_known, size_of

RANKS = 10
"""How many of the best detections can be told apart."""

CANDIDATES = 300
"""The boxes of the highest scores, among which those are sought."""

OVERLAP = 0.5
"""The intersection over union from which on two boxes are of one object."""

_TINY = 1e-6


class Boxes(NamedTuple):
    """Edges, each [N, boxes], as parts of the image's width and height: areas stay near 1, which
    half precision needs."""

    left: ir.Value
    top: ir.Value
    right: ir.Value
    bottom: ir.Value


def edges(op: OpBuilder, boxes: ir.Value) -> Boxes:
    """The edges of boxes [N, boxes, 4]."""
    columns = op.Split(boxes, axis=-1, num_outputs=4, _outputs=4)
    return Boxes(*(op.Squeeze(column, [-1]) for column in columns))


def overlaps(op: OpBuilder, a: Boxes, b: Boxes) -> ir.Value:
    """The intersection over union of boxes, whose edges broadcast."""
    width, height = (
        op.Max(op.Sub(op.Min(high_a, high_b), op.Max(low_a, low_b)), 0.0)
        for low_a, high_a, low_b, high_b in (
            (a.left, a.right, b.left, b.right),
            (a.top, a.bottom, b.top, b.bottom),
        )
    )
    common = op.Mul(width, height)
    return op.Div(common, op.Max(op.Sub(op.Add(_area(op, a), _area(op, b)), common), _TINY))


def _area(op: OpBuilder, boxes: Boxes) -> ir.Value:
    sides = op.Sub(boxes.right, boxes.left), op.Sub(boxes.bottom, boxes.top)
    return op.Mul(*(op.Max(side, 0.0) for side in sides))


def best_of_each(op: OpBuilder, boxes: ir.Value, scores: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Which of boxes [N, A, 4] are the `RANKS` best objects' by their scores [N, A], int64 [N, R];
    and whether there are that many, bool [N, R].

    Again and again the box with the highest score is taken, and those that overlap it are dropped.
    What is of no score, or of no area, is no object.
    """
    scores = op.Mul(scores, op.CastLike(op.Greater(_area(op, edges(op, boxes)), 0.0), scores))
    boxes_of_each = dims(scores)[1]
    if is_known(boxes_of_each):
        count = min(CANDIDATES, boxes_of_each)
        most, places = op.Constant(value_ints=[count]), integers(op, np.arange(count))
    else:
        most = op.Min(op.Shape(scores, start=1), [CANDIDATES])
        places = op.Range(0, op.Squeeze(most, [0]), 1)
    alive, index = op.TopK(scores, most, axis=-1, _outputs=2)
    wide = op.Expand(op.Unsqueeze(index, [2]), [1, 1, 4])
    all_edges = edges(op, op.GatherElements(boxes, wide, axis=1))
    rows, columns = (Boxes(*(op.Unsqueeze(e, [axis]) for e in all_edges)) for axis in (2, 1))
    alike = op.CastLike(op.Greater(overlaps(op, rows, columns), OVERLAP), scores)
    taken, there = [], []
    for _ in range(RANKS):
        first = op.ArgMax(alive, axis=1, keepdims=1)
        taken.append(first)
        there.append(op.Greater(op.ReduceMax(alive, [1], keepdims=1), 0.0))
        pick = op.CastLike(op.Equal(first, places), scores)
        dropped = op.Squeeze(op.MatMul(op.Unsqueeze(pick, [1]), alike), [1])
        alive = op.Where(op.Greater(op.Max(pick, dropped), 0.0), 0.0, alive)
    best = op.GatherElements(index, op.Concat(*taken, axis=1), axis=1)
    return best, op.Concat(*there, axis=1)


def box_at(op: OpBuilder, boxes: ir.Value, index: ir.Value) -> ir.Value:
    """The rows [N, D] of boxes [N, A, D] at indices [N, 1]."""
    wide = op.Expand(op.Unsqueeze(index, [2]), [1, 1, size_of(boxes, 2)])
    return op.Squeeze(op.GatherElements(boxes, wide, axis=1), [1])
