"""Matrix products and convolutions: linear in each of their operands."""

from __future__ import annotations

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.autodiff import Cotangents, Node
from onnxplain.export.operators import Axes, Half, Kind, register_vjp
from onnxplain.export.tensors import attribute, rank, reshape, size_of, static
from onnxplain.export.windows import window_of
from onnxplain.kernels.windows import END, Window, cut, side_by_side, taps


@register_vjp("MatMul", kind=Kind.MATRIX_PRODUCT, axes=Axes.MATRIX_PRODUCT)
def matmul(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """G·Bᵀ and Aᵀ·G, with a vector operand taken as a matrix of one row or column."""
    a, b = node.inputs
    A = op.Unsqueeze(a, [0]) if rank(a) == 1 else a
    B = op.Unsqueeze(b, [1]) if rank(b) == 1 else b
    new = [axis for axis, x in ((-2, a), (-1, b)) if rank(x) == 1]
    G = op.Unsqueeze(g, new) if new else g

    def of_a() -> ir.Value:
        GA = op.MatMul(G, _transposed(op, B))
        return op.Squeeze(GA, [-2]) if rank(a) == 1 else GA

    def of_b() -> ir.Value:
        GB = op.MatMul(_transposed(op, A), G)
        return op.Squeeze(GB, [-1]) if rank(b) == 1 else GB

    return [of_a, of_b]


def _transposed(op: OpBuilder, m: ir.Value) -> ir.Value:
    axes = list(range(rank(m)))
    return op.Transpose(m, perm=[*axes[:-2], axes[-1], axes[-2]])


@register_vjp("Gemm", kind=Kind.MATRIX_PRODUCT, axes=Axes.GEMM)
def gemm(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """y = α A'·B' + β C, where ' transposes if asked to."""
    a, b = node.inputs[:2]
    alpha = node.attributes.get_float("alpha", 1.0)
    ta, tb = attribute(node, "transA", 0), attribute(node, "transB", 0)

    def of_a() -> ir.Value:
        if ta:
            return op.Gemm(b, g, alpha=alpha, transA=tb, transB=1)
        return op.Gemm(g, b, alpha=alpha, transA=0, transB=1 - tb)

    def of_b() -> ir.Value:
        if tb:
            return op.Gemm(g, a, alpha=alpha, transA=1, transB=ta)
        return op.Gemm(a, g, alpha=alpha, transA=1 - ta, transB=0)

    return [of_a, of_b, lambda: op.Mul(g, node.attributes.get_float("beta", 1.0))]


@register_vjp("Conv", kind=Kind.CONVOLUTION)
def conv(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """The transposed convolution with the same weights, which lie as ConvTranspose wants them."""
    x, w = node.inputs[:2]
    window = window_of(node, x, node.outputs[0], kernel=static(w, 2))
    group = attribute(node, "group", 1)
    return [
        cut(op, op.ConvTranspose(g, w, group=group, **window.conv_attributes()), x, window),
        lambda: _of_weight(op, g, x, window, group, w),
        lambda: _of_bias(op, g),
    ]


def _of_weight(
    op: OpBuilder, low: ir.Value, high: ir.Value, window: Window, group: int, w: ir.Value
) -> ir.Value:
    """Σ low · high over images and windows, at each of a window's elements.

    `low` [N, A, *out] has a number for each window over `high` [N, B, *size]; of the shape of w,
    [A, B / group, *kernel].
    """
    per_group = [size_of(v, 1) // group for v in (low, high)]
    columns = side_by_side(op, taps(op, high, window), window)
    batch = 0 if window.is_open else -1  # the windows are the -1 then
    a = op.Reshape(low, [batch, group, per_group[0], window.windows])
    b = op.Reshape(columns, [batch, group, per_group[1] * window.elements, window.windows])
    products = op.MatMul(a, op.Transpose(b, perm=[0, 1, 3, 2]))
    return reshape(op, op.ReduceSum(products, [-4], keepdims=0), static(w))


def _of_bias(op: OpBuilder, g: ir.Value) -> ir.Value:
    return op.ReduceSum(g, [-rank(g), *range(2 - rank(g), 0)], keepdims=0)


@register_vjp(
    "ConvTranspose", kind=Kind.CONVOLUTION, axes=Axes.IMAGES, half=Half.FLOAT32_IN_BFLOAT16
)
def conv_transpose(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """The convolution with the same weights, which lie as Conv wants them."""
    x, w = node.inputs[:2]
    window = window_of(node, node.outputs[0], x, kernel=static(w, 2))
    whole, spatial = g, range(-len(window.size), 0)
    # Output rows past the last window (`after` negative) were written by no input.
    ends = [min(a, 0) or END for a in window.after]
    if {*ends} != {END}:
        g = op.Slice(g, [0] * len(ends), ends, list(spatial))
    attributes = window.conv_attributes()
    del attributes["output_padding"]
    group = attribute(node, "group", 1)
    return [
        op.Conv(g, w, group=group, **attributes),
        lambda: _of_weight(op, x, whole, window, group, w),
        lambda: _of_bias(op, whole),
    ]
