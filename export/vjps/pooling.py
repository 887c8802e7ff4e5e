"""Pools. Among equals, a maximum's cotangent goes to the first, row by row, as in PyTorch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.autodiff import Cotangents, Node
from onnxplain.export.operators import Axes, Half, Kind, never_negative, register_vjp
from onnxplain.export.tensors import (
    attribute,
    constant,
    dims,
    integers,
    mean_of,
    reshape,
    reshape_like,
    size_of,
    spread_to,
    static,
)
from onnxplain.export.windows import window_of
from onnxplain.kernels.windows import Window, cut, padded, scatter, side_by_side, taps, to_tiles


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
    if not window.is_open:
        share = mean_of(op, g, window.counts(pads))
    elif [*window.before, *window.padding] == (pads or [0] * 2 * len(window.size)):
        share = mean_of(op, g, window.elements)
    else:
        share = op.Div(g, _counts(op, x, window, pads))
    return _to_all(op, share, x, window)


def _counts(op: OpBuilder, x: ir.Value, window: Window, pads: Sequence[int] | None) -> ir.Value:
    """What `Window.counts` has as numbers, of shape [1, 1, *out], where the size is open."""
    ones = op.Expand(constant(op, np.ones(1), x), op.Concat([1, 1], window.sizes(op, x), axis=0))
    if pads is not None and any(pads):
        ones = padded(op, ones, pads, 1.0)
    given, whole = pads or [0] * 2 * len(window.size), [*window.before, *window.padding]
    around = [w - p for w, p in zip(whole, given, strict=True)]
    kernel = constant(op, np.ones([1, 1, *window.kernel]), x)
    strides, dilations = list(window.strides), list(window.dilations)
    return op.Conv(ones, kernel, pads=around, strides=strides, dilations=dilations)


def _to_all(op: OpBuilder, g: ir.Value, x: ir.Value, window: Window) -> ir.Value:
    """Add each window's value in `g` [N, C, *out] to all of its elements in `x` [N, C, *size]."""
    if window.tiles:
        return to_tiles(op, g, window, x)
    ones = constant(op, np.ones([1, 1, *window.kernel]), x)
    if not window.is_open:
        planes = op.Reshape(g, [-1, 1, *window.out])
        spread = op.ConvTranspose(planes, ones, **window.conv_attributes())
        return reshape(op, spread, [-1, *static(x, 1)])
    each = constant(op, np.ones([size_of(x, 1), 1, *window.kernel]), x)
    spread = op.ConvTranspose(g, each, group=size_of(x, 1), **window.conv_attributes())
    return cut(op, spread, x, window)


@register_vjp("GlobalAveragePool", kind=Kind.POOL, axes=Axes.IMAGES, half=Half.FLOAT32)
def global_average_pool(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    x = node.inputs[0]
    sizes = dims(x)[2:]
    if all(isinstance(n, int) for n in sizes):
        spatial = static(x, 2)
        return op.Expand(mean_of(op, g, math.prod(spatial)), [1, 1, *spatial])
    count = op.ReduceProd(op.Shape(x, start=2), keepdims=0)
    return spread_to(op, mean_of(op, g, count), x)


@register_vjp("GlobalMaxPool", kind=Kind.MAXIMUM, axes=Axes.IMAGES, average="GlobalAveragePool")
def global_max_pool(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    x = node.inputs[0]
    sizes, channels = dims(x)[2:], size_of(x, 1)
    if all(isinstance(n, int) for n in sizes):
        pixels = math.prod(static(x, 2))
        planes, each = [-1, channels, pixels], integers(op, np.arange(pixels))
    else:
        planes = [0, channels, -1]
        each = op.Range(0, op.ReduceProd(op.Shape(x, start=2), keepdims=0), 1)
    first = op.ArgMax(op.Reshape(x, planes), axis=-1, keepdims=1)
    per_plane = op.Reshape(g, [*planes[:2], 1])
    return reshape_like(op, op.Where(op.Equal(first, each), per_plane, 0.0), x)


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
