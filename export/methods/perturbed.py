"""Channels one by one: the image where a channel is active, and the layer without it."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.canonical.ends import image_axes
from onnxplain.export.grids import resized_to
from onnxplain.export.methods.probes import Channels
from onnxplain.export.tensors import integers, rank, reshape_each, size_of

TINY = 1e-20
"""Of an objective that is 0, what is lost is measured by this."""


def masked(channels: Channels) -> ir.Value:
    """x · (U − min U) / (max U − min U), U being A_k, bilinearly as large as the image: corner on
    corner, as pytorch-grad-cam has it."""
    op, image = channels.op, channels.image
    height, width, channel = (4 + axis for axis in channels.layer.axes)
    A = op.Gather(channels.A, channels.which, axis=channel)
    high = resized_to(op, op.Transpose(A, perm=[channel, 0, height, width]), image, corners=True)
    least, greatest = (f(high, [-2, -1], keepdims=1) for f in (op.ReduceMin, op.ReduceMax))
    mask = op.Div(op.Sub(high, least), op.Add(op.Sub(greatest, least), 1e-8))
    mask = op.Unsqueeze(mask, [-1 if image_axes(image)[2] == 3 else 2])
    return reshape_each(op, op.Mul(mask, image), image)


def without(channels: Channels) -> ir.Value:
    """A, in which A_k is 0: of tokens, in all of them, those of no place too."""
    op, layer, A = channels.op, channels.layer, channels.layer.value
    each = [size_of(A, axis) if axis in layer.channel_axes else 1 for axis in range(rank(A))]
    number = integers(op, np.arange(math.prod(each)).reshape(each))
    which = op.Unsqueeze(channels.which, list(range(1, 1 + rank(A))))
    left = op.Where(op.Equal(number, which), 0.0, op.Unsqueeze(A, [0]))  # [c, *A.shape]
    batch = layer.batch_axis
    if batch:
        left = op.Transpose(left, perm=[*range(1, 1 + batch), 0, *range(1 + batch, 1 + rank(A))])
    return reshape_each(op, left, A, batch)


def likely(op: OpBuilder, s: ir.Value, s_k: ir.Value) -> ir.Value:
    """softmax_k(s_k)."""
    return op.Softmax(s_k, axis=-1)


def lost(op: OpBuilder, s: ir.Value, s_k: ir.Value) -> ir.Value:
    """(s − s_k) / |s|."""
    return op.Div(op.Sub(s, s_k), op.Max(op.Abs(s), TINY))
