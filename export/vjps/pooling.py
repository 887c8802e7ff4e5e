"""Pools. Among equals, a maximum's cotangent goes to the first, row by row, as in PyTorch."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.autodiff import Cotangents, Node
from onnxplain.export.operators import Axes, Half, Kind, never_negative, register_vjp
from onnxplain.export.tensors import (
    attribute,
    constant,
    integers,
    reshape,
    reshape_like,
    size_of,
    static,
)
from onnxplain.export.windows import window_of
from onnxplain.kernels.windows import Window, scatter, side_by_side, taps, to_tiles


@register_vjp("MaxPool", kind=Kind.MAXIMUM, axes=Axes.WINDOW, average="AveragePool")
def max_pool(op: OpBuilder, node: Node, g: ir.Value, *_indices: None) -> Cotangents:
    x = node.inputs[0]
    window = window_of(node, x, node.outputs[0])
    lowest = float(np.finfo(x.dtype.numpy() if x.dtype else np.float32).min)
    columns = side_by_side(op, taps(op, x, window, padding=lowest), window)
    first = op.ArgMax(columns, axis=-2, keepdims=1)
    chosen = op.Equal(first, integers(op, np.arange(window.elements)[:, None]))
    per_window = op.Reshape(g, [0, 0, 1, window.windows])
    return scatter(op, op.Where(chosen, per_window, 0.0), x, window)


@register_vjp("AveragePool", kind=Kind.POOL, axes=Axes.WINDOW, half=Half.FOLLOWS)
def average_pool(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    x = node.inputs[0]
    window = window_of(node, x, node.outputs[0])
    pads = None
    if attribute(node, "count_include_pad", 0):
        pads = node.attributes.get_ints("pads", [0] * 2 * len(window.size))
        if node.attributes.get_string("auto_pad", "NOTSET").startswith("SAME"):
            pads = [*window.before, *window.after]
    share = op.Mul(g, constant(op, 1.0 / window.counts(pads), x))
    return _to_all(op, share, x, window)


def _to_all(op: OpBuilder, g: ir.Value, x: ir.Value, window: Window) -> ir.Value:
    """Add each window's value in `g` [N, C, *out] to all of its elements in `x` [N, C, *size]."""
    if window.tiles:
        return to_tiles(op, g, window)
    ones = constant(op, np.ones([1, 1, *window.kernel]), x)
    planes = reshape(op, g, [-1, 1, *window.out])
    spread = op.ConvTranspose(planes, ones, **window.conv_attributes())
    return reshape(op, spread, [-1, *static(x, 1)])


@register_vjp("GlobalAveragePool", kind=Kind.POOL, axes=Axes.IMAGES, half=Half.FLOAT32)
def global_average_pool(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    x = node.inputs[0]
    spatial = static(x, 2)
    return op.Expand(op.Mul(g, 1.0 / math.prod(spatial)), [1, 1, *spatial])


@register_vjp("GlobalMaxPool", kind=Kind.MAXIMUM, axes=Axes.IMAGES, average="GlobalAveragePool")
def global_max_pool(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    x = node.inputs[0]
    spatial = static(x, 2)
    pixels = math.prod(spatial)
    planes = [-1, size_of(x, 1), pixels]
    first = op.ArgMax(reshape(op, x, planes), axis=-1, keepdims=1)
    chosen = op.Equal(first, integers(op, np.arange(pixels)))
    per_plane = reshape(op, g, [*planes[:2], 1])
    return reshape_like(op, op.Where(chosen, per_plane, 0.0), x)


@register_vjp("LpPool", axes=Axes.WINDOW, sign=never_negative, half=Half.FLOAT32, on_cuda=False)
@register_vjp(
    "GlobalLpPool", axes=Axes.IMAGES, sign=never_negative, half=Half.FLOAT32, on_cuda=False
)
def lp_pool(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """y = (Σ|x|ᵖ)^(1/p): g · (|x| / y)^(p−1) · sign(x), and 0 where y is 0."""
    x, y = node.inputs[0], node.outputs[0]
    p = attribute(node, "p", 2)
    share = op.Where(op.Equal(y, 0.0), 0.0, op.Div(g, op.Pow(y, float(p - 1))))
    if node.op_type == "LpPool":
        share = _to_all(op, share, x, window_of(node, x, y))
    return op.Mul(share, op.Mul(op.Pow(op.Abs(x), float(p - 1)), op.Sign(x)))


@register_vjp("MaxUnpool", kind=Kind.MOVE, on_cuda=False)
def max_unpool(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """Taken from where each element was put, its place in the flattened output."""
    return [op.Gather(op.Reshape(g, [-1]), node.inputs[1], axis=-1), None, None]
