"""The operations worth fusing, spelled out in standard operators.

Each is defined once, here; a runtime that lacks our kernel runs this body.
"""

from __future__ import annotations

import math

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.kernels.functions import fused
from onnxplain.kernels.windows import Window, scatter, taps, tile_sums, to_tiles


def scaled(op: OpBuilder, x: ir.Value, T: float | ir.Value) -> ir.Value:
    """x / T, for a temperature that is a number or an input of the graph."""
    return op.Div(x, T) if isinstance(T, ir.Value) else op.Mul(x, 1.0 / T)


@fused("SoftGate")
def soft_gate(op: OpBuilder, z: ir.Value, g: ir.Value, T: float | ir.Value) -> ir.Value:
    """g · σ(z / T), elementwise (Satkiewicz, arXiv 2507.22832 v1)."""
    return op.Mul(g, op.Sigmoid(scaled(op, z, T)))


@fused("ReluSoftGate")
def relu_soft_gate(op: OpBuilder, z: ir.Value, T: float | ir.Value) -> tuple[ir.Value, ir.Value]:
    """max(z, 0) and the gate σ(z / T) of `soft_gate`."""
    return op.Relu(z), op.Sigmoid(scaled(op, z, T))


@fused("NormalGate")
def normal_gate(op: OpBuilder, z: ir.Value, g: ir.Value, T: float | ir.Value) -> ir.Value:
    """g · Φ(z / T), elementwise (Satkiewicz, arXiv 2507.22832 v6)."""
    return op.Mul(g, phi(op, scaled(op, z, T)))


@fused("ReluNormalGate")
def relu_normal_gate(op: OpBuilder, z: ir.Value, T: float | ir.Value) -> tuple[ir.Value, ir.Value]:
    """max(z, 0) and the gate Φ(z / T) of `normal_gate`."""
    return op.Relu(z), phi(op, scaled(op, z, T))


def phi(op: OpBuilder, u: ir.Value) -> ir.Value:
    """Φ(u) = ½ (1 + erf(u / √2)), the standard normal distribution function, elementwise."""
    return op.Add(op.Mul(op.Erf(op.Mul(u, math.sqrt(0.5))), 0.5), 0.5)


def _soft_max_pool_grad_of_tiles(
    op: OpBuilder, x: ir.Value, g: ir.Value, window: Window, T: float | ir.Value
) -> ir.Value:
    e, u = _exponentials(op, scaled(op, x, T), window)
    Z = tile_sums(op, e, window)
    mean_u = op.Div(tile_sums(op, op.Mul(e, u), window), Z)
    per_window = op.Div(g, Z)
    through_value = op.Mul(per_window, op.Sub(1.0, mean_u))
    slope = op.Mul(u, to_tiles(op, per_window, window))
    return op.Mul(e, op.Add(to_tiles(op, through_value, window), slope))


def _weighted_pool_grad_of_tiles(
    op: OpBuilder, x: ir.Value, g: ir.Value, window: Window, T: float | ir.Value
) -> ir.Value:
    e, _ = _exponentials(op, scaled(op, x, T), window)
    return op.Mul(e, to_tiles(op, op.Div(g, tile_sums(op, e, window)), window))


def _exponentials(op: OpBuilder, x: ir.Value, window: Window) -> tuple[ir.Value, ir.Value]:
    """e = exp(u) and u = x − max over the window, which tiles; both [N, C, *size]."""
    highest = op.MaxPool(x, kernel_shape=list(window.kernel), strides=list(window.strides))
    u = op.Sub(x, to_tiles(op, highest, window))
    return op.Exp(u), u


@fused("SoftMaxPoolGrad", of_tiles=_soft_max_pool_grad_of_tiles)
def soft_max_pool_grad(
    op: OpBuilder, x: ir.Value, g: ir.Value, window: Window, T: float | ir.Value
) -> ir.Value:
    """Gradient of the softmax-weighted pool, through its weights (Satkiewicz, arXiv 2507.22832 v1).

    With w = softmax(x / T) over the window and s = Σ w_i x_i, it is g · w_i (1 + (x_i − s) / T),
    added up over the windows that hold x_i; padding counts as the value 0. With
    u = (x − max) / T, e = exp(u), Z = Σ e and ū = Σ e u / Z, this is e · g/Z · (1 − ū) + e u · g/Z.
    Where it is written out in a graph, windows that tile are not taken apart.

    Args:
        x: the pool's input [N, C, *size].
        g: the cotangent of its output [N, C, *out].
    """
    each = taps(op, scaled(op, x, T), window)
    highest = op.Max(*each)
    us = [op.Sub(tap, highest) for tap in each]
    es = [op.Exp(u) for u in us]
    eus = [op.Mul(e, u) for e, u in zip(es, us, strict=True)]
    Z = op.Sum(*es)
    mean_u = op.Div(op.Sum(*eus), Z)
    per_window = op.Div(g, Z)
    through_value = op.Mul(per_window, op.Sub(1.0, mean_u))
    parts = [
        op.Add(op.Mul(e, through_value), op.Mul(eu, per_window))
        for e, eu in zip(es, eus, strict=True)
    ]
    return scatter(op, parts, x, window)


@fused("WeightedPoolGrad", of_tiles=_weighted_pool_grad_of_tiles)
def weighted_pool_grad(
    op: OpBuilder, x: ir.Value, g: ir.Value, window: Window, T: float | ir.Value
) -> ir.Value:
    """Gradient of the softmax-weighted pool, weights held constant (arXiv 2507.22832 v6).

    With w = softmax(x / T) over the window it is g · w_i, added up over the windows that hold x_i;
    padding counts as the value 0.

    Args:
        x: the pool's input [N, C, *size].
        g: the cotangent of its output [N, C, *out].
    """
    each = taps(op, scaled(op, x, T), window)
    highest = op.Max(*each)
    es = [op.Exp(op.Sub(tap, highest)) for tap in each]
    per_window = op.Div(g, op.Sum(*es))
    return scatter(op, [op.Mul(e, per_window) for e in es], x, window)
