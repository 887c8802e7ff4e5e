"""Normalisations, in inference mode.

`x̂` is the input with mean 0 and variance 1, `γ` the scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.autodiff import Cotangents, Node
from onnxplain.export.operators import Axes, Half, Kind, Linear, register_vjp
from onnxplain.export.tensors import (
    along_axis,
    attribute,
    axes_from_end,
    axis_from_end,
    constant,
    rank,
    size_of,
    zeros_like,
)


@register_vjp(
    "BatchNormalization",
    kind=Kind.NORMALISATION,
    axes=Axes.IMAGES,
    linear=Linear.FIRST,
    homogeneous=(0, 2, 3),
    half=Half.HALF,
)
def batch_normalization(op: OpBuilder, node: Node, g: ir.Value, *_statistics: None) -> Cotangents:
    """Linear in inference: each channel is scaled by γ / √(variance + ε)."""
    x, scale, _, mean, variance = node.inputs
    spatial = list(range(1, rank(x) - 1))
    others = [i - rank(x) for i in range(rank(x)) if i != 1]

    def spread(value: ir.Value) -> ir.Value:
        return op.Unsqueeze(value, spatial) if spatial else value

    deviation = op.Sqrt(op.Add(variance, node.attributes.get_float("epsilon", 1e-5)))

    def along() -> ir.Value:
        """Σ g · x̂ for each channel."""
        x_hat = op.Div(op.Sub(x, spread(mean)), spread(deviation))
        return op.ReduceSum(op.Mul(g, x_hat), others, keepdims=0)

    def of_mean() -> ir.Value:
        return op.Neg(op.Mul(op.ReduceSum(g, others, keepdims=0), op.Div(scale, deviation)))

    def of_variance() -> ir.Value:
        """x̂ shrinks by half of itself, over the variance."""
        square = op.Mul(deviation, deviation)
        return op.Mul(op.Div(op.Mul(along(), scale), square), -0.5)

    return [
        op.Mul(g, spread(op.Div(scale, deviation))),
        along,
        lambda: op.ReduceSum(g, others, keepdims=0),
        of_mean,
        of_variance,
    ]


def standardised(
    op: OpBuilder,
    x: ir.Value,
    g: ir.Value,
    axes: Sequence[int],
    epsilon: float,
    centred: bool = True,
) -> tuple[ir.Value, ir.Value]:
    """x̂ = (x − mean) / √(variance + ε) over `axes` (from the end), and its cotangent of x given g.

    That is (g − mean(g) − x̂ · mean(g · x̂)) / √(variance + ε) (Ba et al., "Layer Normalization",
    arXiv 1607.06450). Not `centred`, the mean is taken for 0: x̂ is x over its root mean square.
    """
    deviation = op.Sub(x, op.ReduceMean(x, axes, keepdims=1)) if centred else x
    variance = op.ReduceMean(op.Mul(deviation, deviation), axes, keepdims=1)
    slope = op.Reciprocal(op.Sqrt(op.Add(variance, epsilon)))
    x_hat = op.Mul(deviation, slope)
    along = op.Mul(x_hat, op.ReduceMean(op.Mul(g, x_hat), axes, keepdims=1))
    if centred:
        g = op.Sub(g, op.ReduceMean(g, axes, keepdims=1))
    return x_hat, op.Mul(op.Sub(g, along), slope)


@register_vjp("LayerNormalization", kind=Kind.NORMALISATION, axes=Axes.ALONG)
def layer_normalization(
    op: OpBuilder, node: Node, g: ir.Value | None, *statistics: ir.Value | None
) -> Cotangents:
    """Of the statistics, 1/σ falls by x̂ / (n σ²) as x grows; `onnxplain::RMSNormalization` has
    none."""
    x, scale = node.inputs[:2]
    axes = list(range(axis_from_end(node, -1, x), 0))
    centred = node.op_type == "LayerNormalization"
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    gy = zeros_like(op, x) if g is None else g
    x_hat, gx = standardised(op, x, op.Mul(gy, scale), axes, epsilon, centred)
    of_mean, of_slope = [*statistics, None, None][:2]
    share = 1 / math.prod(size_of(x, axis) for axis in axes) if any(statistics) else 0
    if of_mean is not None:
        gx = op.Add(gx, op.Mul(of_mean, share))
    if of_slope is not None:
        slope = node.outputs[2]
        falls = op.Mul(op.Mul(of_slope, op.Mul(slope, slope)), share)
        gx = op.Sub(gx, op.Mul(x_hat, falls))
    return [gx, lambda: op.Mul(gy, x_hat), *([gy] if centred else [])]


@register_vjp("InstanceNormalization", kind=Kind.NORMALISATION, axes=Axes.IMAGES)
def instance_normalization(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    x, scale, _ = node.inputs
    axes = list(range(2 - rank(x), 0))
    gamma = op.Unsqueeze(scale, list(range(1, rank(x) - 1)))
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    x_hat, gx = standardised(op, x, op.Mul(g, gamma), axes, epsilon)
    others = [-rank(x), *axes]
    return [
        gx,
        lambda: op.ReduceSum(op.Mul(g, x_hat), others, keepdims=0),
        lambda: op.ReduceSum(g, others, keepdims=0),
    ]


@register_vjp("MeanVarianceNormalization", kind=Kind.NORMALISATION, on_cuda=False)
def mean_variance_normalization(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    x = node.inputs[0]
    axes = axes_from_end(node.attributes.get_ints("axes", [0, 2, 3]), rank(x))
    return standardised(op, x, g, axes, 1e-18)[1]  # the operator adds 1e-9 to the deviation


@register_vjp("LpNormalization", kind=Kind.NORMALISATION, axes=Axes.ALONG)
def lp_normalization(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """y = x / ‖x‖: (g − ∂‖x‖/∂x · Σ g·y) / ‖x‖, and 0 where x is 0."""
    x, y = node.inputs[0], node.outputs[0]
    axes = [axis_from_end(node, -1, x)]
    along = op.ReduceSum(op.Mul(g, y), axes, keepdims=1)
    if attribute(node, "p", 2) == 1:
        norm, slope = op.ReduceL1(x, axes, keepdims=1), op.Sign(x)
    else:
        norm, slope = op.ReduceL2(x, axes, keepdims=1), y
    gx = op.Div(op.Sub(g, op.Mul(slope, along)), norm)
    return op.Where(op.Equal(norm, 0.0), 0.0, gx)


@register_vjp("LRN", kind=Kind.NORMALISATION, axes=Axes.IMAGES)
def lrn(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """y = x · d^−β with d = k + α/n · Σ_window x² over channels.

    So ∂: g · d^−β − 2αβ/n · x · Σ_window g · y / d, the window seen from the other side.
    """
    x, y = node.inputs[0], node.outputs[0]
    alpha, beta, window = lrn_window(node)
    d = lrn_scale(op, node)
    shared = along_axis(op, op.Mul(g, op.Div(y, d)), x, 1 - rank(x), window.T)
    own = op.Mul(g, op.Pow(d, constant(op, np.array(-beta), x)))
    return op.Sub(own, op.Mul(op.Mul(x, 2.0 * alpha * beta), shared))


def lrn_scale(op: OpBuilder, node: Node) -> ir.Value:
    """d of an LRN."""
    x = node.inputs[0]
    alpha, _, window = lrn_window(node)
    sums = along_axis(op, op.Mul(x, x), x, 1 - rank(x), window)
    return op.Add(op.Mul(sums, alpha), node.attributes.get_float("bias", 1.0))


def lrn_window(node: Node) -> tuple[float, float, np.ndarray]:
    """α/n, β, and the matrix that sums each window: [i, j] is 1 where channel i is in that of j."""
    size = attribute(node, "size", 1)
    at = np.arange(size_of(node.inputs[0], 1))
    lag = at[:, None] - at[None, :]
    window = ((lag >= -((size - 1) // 2)) & (lag <= size // 2)).astype(float)
    alpha = node.attributes.get_float("alpha", 1e-4) / size
    return alpha, node.attributes.get_float("beta", 0.75), window
