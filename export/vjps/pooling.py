"""Pools. Among equals, a maximum's cotangent goes to the first, row by row, as in PyTorch."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.autodiff import Cotangents, Node
from onnxplain.export.tensors import (
    attribute,
    constant,
    integers,
    reshape,
    reshape_like,
    size_of,
    static,
)
from onnxplain.export.vjps.table import register_vjp
from onnxplain.export.windows import Window, fold, unfold


@register_vjp("MaxPool")
def max_pool(op: OpBuilder, node: Node, g: ir.Value, *_indices: None) -> Cotangents:
    x = node.inputs[0]
    window = Window.of(node, x, node.outputs[0])
    lowest = float(np.finfo(x.dtype.numpy() if x.dtype else np.float32).min)
    axis = -len(window.size) - 1
    first = op.ArgMax(unfold(op, x, window, padding=lowest), axis=axis, keepdims=1)
    at = np.arange(window.elements).reshape([-1] + [1] * len(window.size))
    chosen = op.Equal(first, integers(op, at))
    return fold(op, op.Where(chosen, op.Unsqueeze(g, [axis]), 0.0), x, window)


@register_vjp("AveragePool")
def average_pool(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    x = node.inputs[0]
    window = Window.of(node, x, node.outputs[0])
    pads = None
    if attribute(node, "count_include_pad", 0):
        pads = node.attributes.get_ints("pads", [0] * 2 * len(window.size))
        if node.attributes.get_string("auto_pad", "NOTSET").startswith("SAME"):
            pads = [*window.before, *window.after]
    share = op.Mul(g, constant(op, 1.0 / window.counts(pads), x))
    ones = constant(op, np.ones([1, 1, *window.kernel]), x)
    planes = reshape(op, share, [-1, 1, *window.out])
    return reshape(
        op, op.ConvTranspose(planes, ones, **window.conv_attributes()), [-1, *static(x, 1)]
    )


@register_vjp("GlobalAveragePool")
def global_average_pool(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    x = node.inputs[0]
    spatial = static(x, 2)
    return op.Expand(op.Mul(g, 1.0 / math.prod(spatial)), [1, 1, *spatial])


@register_vjp("GlobalMaxPool")
def global_max_pool(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    x = node.inputs[0]
    spatial = static(x, 2)
    pixels = math.prod(spatial)
    planes = [-1, size_of(x, 1), pixels]
    first = op.ArgMax(reshape(op, x, planes), axis=-1, keepdims=1)
    chosen = op.Equal(first, integers(op, np.arange(pixels)))
    per_plane = reshape(op, g, [*planes[:2], 1])
    return reshape_like(op, op.Where(chosen, per_plane, 0.0), x)
