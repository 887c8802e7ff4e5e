"""Detectors: the score of an object's class, over all boxes that are of that object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.contract.objective import BOX, EXPLAINED_BOX, EXPLAINED_CLASS, INDEX, NO_CLASS
from onnxplain.export.heads import chosen_class
from onnxplain.export.objectives.boxes import (
    OVERLAP,
    RANKS,
    Boxes,
    best_of_each,
    box_at,
    edges,
    overlaps,
)
from onnxplain.export.objectives.decoding import read, sides
from onnxplain.export.objectives.detectors import SETTINGS, fits
from onnxplain.export.objectives.objective import (
    Emitted,
    Fit,
    Input,
    Network,
    Objective,
    Settings,
    hold,
    register_objective,
)
from onnxplain.export.objectives.reading import in_range, one_hot_row


def with_box(network: Network, settings: Settings) -> Fit | str:
    found = fits(network, settings)
    if isinstance(found, str):
        return found
    return replace(
        found, ranks=RANKS, shapes={"box": [4]}, image=network.image, no_class="nothing found"
    )


def emit(op: OpBuilder, fit: Fit, inputs: Mapping[str, ir.Value]) -> Emitted:
    """Σ_a w_a s_ac, w_a ∝ IoU(a, b) · p_ac where that overlap is above a half.

    The box b is the one given, or that of the k-th best object; w is held constant. Where there is
    no such object, or no box overlaps the one given, all is 0, and the class -1.
    """
    assert fit.image is not None
    boxes, scores, likely = read(op, fit, fit.image)
    target = inputs["target"]
    is_rank = op.Less(target, 0)
    wanted = in_range(op, op.Max(target, 0), fit.classes, likely)

    any_class = op.ReduceMax(likely, [2], keepdims=0)
    ranked = op.Where(op.Unsqueeze(is_rank, [1]), any_class, _of_class(op, likely, wanted, fit))
    best, there = best_of_each(op, boxes, ranked)
    rank = op.Where(is_rank, op.Sub(-1, target), 0)
    at = op.GatherElements(best, op.Unsqueeze(rank, [1]), axis=1)
    scale = sides(op, fit.image, boxes)
    given = op.Greater(op.ReduceMax(op.Abs(inputs["box"]), [1], keepdims=1), 0.0)
    found = op.GatherElements(there, op.Unsqueeze(rank, [1]), axis=1)
    own_box = op.Where(found, box_at(op, boxes, at), 0.0)
    box = op.Where(given, op.Div(inputs["box"], scale), own_box)

    overlap = overlaps(op, edges(op, boxes), Boxes(*edges(op, op.Unsqueeze(box, [1]))))
    of_object = op.Mul(overlap, op.CastLike(op.Greater(overlap, OVERLAP), overlap))
    near = op.Greater(op.ReduceMax(of_object, [1], keepdims=1), 0.0)
    overlap = op.Where(near, of_object, overlap)

    inside = op.Squeeze(op.MatMul(op.Unsqueeze(overlap, [1]), likely), [1])
    ranked_class = chosen_class(op, inside, op.Max(target, -fit.classes))
    own = op.ArgMax(box_at(op, likely, at), axis=1, keepdims=0)
    predicted = op.Where(op.Squeeze(given, [1]), ranked_class, own)
    chosen = op.Where(is_rank, predicted, wanted)

    weights = op.Mul(overlap, _of_class(op, likely, chosen, fit))
    total = op.ReduceSum(weights, [1], keepdims=1)
    shares = hold(op, op.Div(weights, op.Where(op.Greater(total, 0.0), total, 1.0)))
    score = op.ReduceSum(op.Mul(_of_class(op, scores, chosen, fit), shares), [1], keepdims=0)
    chosen = op.Where(op.Greater(op.Squeeze(total, [1]), 0.0), chosen, NO_CLASS)
    return score, {EXPLAINED_CLASS: chosen, EXPLAINED_BOX: op.Mul(box, scale)}


def _of_class(op: OpBuilder, scores: ir.Value, index: ir.Value, fit: Fit) -> ir.Value:
    """The column [N, A] of scores [N, A, C] at each sample's class [N]."""
    hot = op.Unsqueeze(one_hot_row(op, index, fit.classes, scores), [2])
    return op.Squeeze(op.MatMul(scores, hot), [2])


register_objective(
    Objective(
        "detection",
        "the score of a detected object",
        with_box,
        emit,
        (
            Input(
                "target",
                f"-1 is the best detection, -2 the best of another object, down to -{RANKS}; or a "
                "class, whose best detection it is. With a box: the class in it, -1 the likeliest",
                INDEX,
                -1,
            ),
            Input(
                "box",
                "the object, as left, top, right and bottom in pixels of the network's input; "
                "all 0 is as the target says",
                BOX,
                0,
            ),
        ),
        SETTINGS,
    )
)
