"""Priors on the picture itself: total variation and norm (Yin et al. 2020, DeepInversion)."""

from __future__ import annotations

from functools import partial, reduce

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.canonical.ends import image_axes
from onnxplain.vital.graphs.matching import of_all


def priors(op: OpBuilder, image: ir.Value, weights: ir.Value, together: int = 1) -> ir.Value:
    """w₀ Σ mean|d| + w₁ Σ ‖d‖₂ + w₂ ‖x‖₂ for each image x, [N].

    Of so many pictures `together`, each has the mean of mean|d| and of ‖x‖₂, and ‖d‖₂ of all.

    d are the differences between neighbours, summed over four directions (right, down, and both
    diagonals). `weights` is [3].
    """
    differences = _differences(op, image)
    everywhere = [1, 2, 3]
    tv_l1 = [op.ReduceMean(op.Abs(d), everywhere, keepdims=0) for d in differences]
    tv_l2 = [op.ReduceL2(d, everywhere, keepdims=0) for d in differences]
    terms = [
        of_all(op, reduce(op.Add, tv_l1), together, op.ReduceMean),
        reduce(op.Add, [of_all(op, each, together, op.ReduceL2) for each in tv_l2]),
        of_all(op, op.ReduceL2(image, everywhere, keepdims=0), together, op.ReduceMean),
    ]
    weighted = [op.Mul(term, op.Slice(weights, [i], [i + 1], [0])) for i, term in enumerate(terms)]
    return reduce(op.Add, weighted)


def _differences(op: OpBuilder, image: ir.Value) -> list[ir.Value]:
    height, width, _ = image_axes(image)
    end = 2**31 - 1
    cut = partial(op.Slice, image)

    def part(rows: tuple[int, int], columns: tuple[int, int]) -> ir.Value:
        return cut([rows[0], columns[0]], [rows[1], columns[1]], [height, width])

    every, first, last = (0, end), (0, -1), (1, end)
    return [
        op.Sub(part(every, first), part(every, last)),
        op.Sub(part(first, every), part(last, every)),
        op.Sub(part(last, first), part(first, last)),
        op.Sub(part(first, first), part(last, last)),
    ]
