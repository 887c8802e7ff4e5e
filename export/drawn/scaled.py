"""A map's values as colours stand for them: smoothed, and by their white point."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.contract.colours import gaussian
from onnxplain.contract.explain import Preprocessing
from onnxplain.contract.picture import (
    PULLBACK_STYLE,
    SORTED,
    STEPS,
    PictureOptions,
    share_above,
    thinning,
)
from onnxplain.export.tensors import constant, integers, on_device, scalar_size_at


def scaled(
    op: OpBuilder, look: PictureOptions, maps: ir.Value, channels: int, pre: Preprocessing
) -> ir.Value:
    """The values of maps [M,C,H,W] by their white points, [M,1,H,W]; of the style `pullback`
    [M,1 or 3,H,W].

    Args:
        channels: C.
        pre: of the network; it says H and W, or that they are open.
    """
    if look.style == PULLBACK_STYLE:
        values = maps if channels in (1, 3) else op.ReduceMean(maps, [1], keepdims=1)
        channels = channels if channels in (1, 3) else 1
    else:
        values = maps if look.has_signs else op.Abs(maps)
        values = op.ReduceSum(values, [1], keepdims=1) if channels > 1 else values
        channels = 1
        values = _smoothed(op, look, values, pre)
    magnitudes = op.Abs(values) if look.has_signs else values
    sorted_, k = _thinned(op, look, magnitudes, channels, pre)
    greatest, _ = op.TopK(op.Flatten(sorted_, axis=1), k, _outputs=2)
    last = op.Slice(greatest, op.Sub(k, 1), k, [1])
    white = op.Reshape(last, [-1, 1, 1, 1])
    most = op.ReduceMax(magnitudes, [1, 2, 3], keepdims=1)
    white = op.Where(op.Greater(white, 0.0), white, most)
    white = op.Where(op.Greater(white, 0.0), white, 1.0)
    return op.Clip(op.Div(values, white), -1.0 if look.has_signs else 0.0, 1.0)


def _smoothed(
    op: OpBuilder, look: PictureOptions, values: ir.Value, pre: Preprocessing
) -> ir.Value:
    if not pre.any_size:
        if not (sigma := look.sigma(pre.height, pre.width)):
            return values
        down, across = (constant(op, gaussian(n, sigma), values) for n in (pre.height, pre.width))
    else:
        if not (share := look.sigma(1, 1)):
            return values
        height, width = _sides(op, values)
        shorter = op.Cast(on_device(op, op.Min(height, width)), to=ir.DataType.FLOAT)
        down, across = (_gaussian(op, n, op.Mul(shorter, share)) for n in (height, width))
    return op.MatMul(op.MatMul(down, values), op.Transpose(across, perm=[1, 0]))


def _gaussian(op: OpBuilder, size: ir.Value, sigma: ir.Value) -> ir.Value:
    """`onnxplain.contract.colours.gaussian`: float32 [size, size] of a scalar and of [1]."""
    at = op.Cast(op.Range(0, size, 1), to=ir.DataType.FLOAT)
    distance = op.Abs(op.Sub(op.Unsqueeze(at, [1]), at))
    by_sigma = op.Div(distance, sigma)
    bell = op.Exp(op.Mul(op.Mul(by_sigma, by_sigma), -0.5))
    within = op.LessOrEqual(distance, op.Ceil(op.Mul(sigma, 4.0)))
    bell = op.Where(within, bell, 0.0)
    return op.Div(bell, op.ReduceSum(bell, [1], keepdims=1))


def _thinned(
    op: OpBuilder, look: PictureOptions, magnitudes: ir.Value, channels: int, pre: Preprocessing
) -> tuple[ir.Value, ir.Value]:
    """What a white point is taken of, of every s-th row and column of [M,C,H,W]; and k, [1]."""
    if not pre.any_size:
        step, k = thinning(pre.height, pre.width, look.white_percentile, channels)
        if step > 1:
            sizes = [pre.height, pre.width]
            magnitudes = op.Slice(magnitudes, [0, 0], sizes, [2, 3], [step, step])
        return magnitudes, integers(op, np.array([k]))
    height, width = _sides(op, magnitudes)

    def rank(step: ir.Value) -> ir.Value:
        down, across = (op.Div(op.Add(n, op.Sub(step, 1)), step) for n in (height, width))
        return _rank_from_top(op, op.Mul(op.Mul(down, across), channels), look.white_percentile)

    ranks = rank(integers(op, np.arange(1, STEPS)))  # falling
    too_many = op.Max(op.Min(op.Sub(ranks, SORTED), 1), 0)
    step = op.Add(op.ReduceSum(too_many, [0], keepdims=1), 1)
    sizes, steps = op.Shape(magnitudes, start=2), op.Concat(step, step, axis=0)
    return op.Slice(magnitudes, [0, 0], sizes, [2, 3], steps), rank(step)


def _rank_from_top(op: OpBuilder, counts: ir.Value, percentile: float) -> ir.Value:
    """`onnxplain.contract.picture.rank_from_top` of whole numbers, 1 + ⌊(n - 1) · share⌋.

    Numbers of whose rank it is enough that it is beyond `SORTED` are made less, so that no product
    is beyond 32 bits, as OpenVINO computes.
    """
    share = share_above(percentile)
    if not share:
        return op.Add(op.Mul(counts, 0), 1)
    enough = math.ceil(SORTED / share) + 1
    before = op.Sub(op.Min(counts, enough), 1)
    return op.Add(op.Div(op.Mul(before, share.numerator), share.denominator), 1)


def _sides(op: OpBuilder, maps: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Height and width of [M,C,H,W], int64 scalars on the processor."""
    return scalar_size_at(op, maps, 2), scalar_size_at(op, maps, 3)
