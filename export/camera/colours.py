"""Between the colours of cameras and of networks, in whole numbers from 0 to 255."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.tensors import constant

_LUMINANCE = (19595, 38470, 7471)
"""Of red, green and blue in 65536: ITU-R BT.601 as Pillow's `convert("L")` has it."""


def rounded(op: OpBuilder, x: ir.Value) -> ir.Value:
    """The nearest whole number of 0…255, a half upward."""
    return op.Clip(op.Floor(op.Add(x, 0.5)), 0.0, 255.0)


def luminance(op: OpBuilder, image: ir.Value) -> ir.Value:
    """[N, 3, H, W] → [N, 1, H, W]. All sums are below 2²⁴, and so exact."""
    weights = constant(op, np.array(_LUMINANCE).reshape(3, 1, 1), image)
    total = op.ReduceSum(op.Mul(image, weights), [1], keepdims=1)
    return op.Floor(op.Div(op.Add(total, 32768.0), 65536.0))


def rgb_of_nv12(op: OpBuilder, frame: ir.Value) -> ir.Value:
    """Float [N, h · 3/2, w] → [N, 3, h, w], both in whole numbers of 0…255.

    ITU-R BT.601 of limited range, each chroma for two by two pixels, as OpenCV's
    COLOR_YUV2RGB_NV12 does:
        R = 1.164 (Y - 16) + 1.596 (V - 128)
        G = 1.164 (Y - 16) - 0.813 (V - 128) - 0.391 (U - 128)
        B = 1.164 (Y - 16) + 2.018 (U - 128)
    """
    rows = op.Shape(frame, start=1, end=2)
    height = op.Mul(op.Div(rows, 3), 2)
    luma = op.Slice(frame, [0], height, [1])
    chroma = op.Slice(frame, height, rows, [1])
    half, width = op.Div(rows, 3), op.Shape(frame, start=2, end=3)
    pairs = op.Reshape(chroma, op.Concat([0], half, [1], op.Div(width, 2), [1, 2], axis=0))
    every = op.Expand(pairs, op.Concat([1, 1, 2, 1, 2, 1], axis=0))
    every = op.Reshape(every, op.Concat([0], height, width, [2], axis=0))
    every = op.Sub(op.Transpose(every, perm=[0, 3, 1, 2]), 128.0)
    light = op.Mul(op.Relu(op.Sub(op.Unsqueeze(luma, [1]), 16.0)), 1220542 / 2**20)
    weights = np.array([[0, 1673527], [-409993, -852492], [2116026, 0]]) / 2**20
    colour = op.Conv(every, constant(op, weights.reshape(3, 2, 1, 1), frame), kernel_shape=[1, 1])
    return rounded(op, op.Add(light, colour))
