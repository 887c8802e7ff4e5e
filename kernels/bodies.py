"""The operations worth fusing, spelled out in standard operators.

Each is defined once, here; a runtime that lacks our kernel runs this body.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.kernels.elements import Columns, Elements, elements_of
from onnxplain.kernels.functions import fused
from onnxplain.kernels.windows import Window


def scaled(op: OpBuilder, x: ir.Value, T: float | ir.Value, by: float = 1.0) -> ir.Value:
    """x · by / T, for a temperature that is a number or an input of the graph."""
    if isinstance(T, ir.Value):
        return op.Div(x, T if by == 1.0 else op.Mul(T, 1.0 / by))
    return op.Mul(x, by / T)


@fused("SoftGate")
def soft_gate(op: OpBuilder, z: ir.Value, g: ir.Value, T: float | ir.Value) -> ir.Value:
    """g · σ(z / T), elementwise (Satkiewicz, arXiv 2507.22832 v1)."""
    return op.Mul(g, op.Sigmoid(scaled(op, z, T)))


@fused("NormalGate")
def normal_gate(op: OpBuilder, z: ir.Value, g: ir.Value, T: float | ir.Value) -> ir.Value:
    """g · Φ(z / T), elementwise (Satkiewicz, arXiv 2507.22832 v6)."""
    return op.Mul(g, phi(op, z, T))


def phi(op: OpBuilder, z: ir.Value, T: float | ir.Value) -> ir.Value:
    """Φ(z / T), Φ(u) = ½ (1 + erf(u / √2)) the standard normal distribution function."""
    return op.Add(op.Mul(op.Erf(scaled(op, z, T, math.sqrt(0.5))), 0.5), 0.5)


def _soft_max_pool_grad(op: OpBuilder, of: Elements, g: ir.Value) -> ir.Value:
    e, u = _exponentials(op, of)
    Z = of.sums(e)
    mean_u = op.Div(of.sums(op.Mul(e, u)), Z)
    share = op.Mul(e, of.beside(op.Div(of.per_window(g), Z)))
    return of.added(op.Mul(share, op.Add(u, of.beside(op.Sub(1.0, mean_u)))))


def _weighted_pool_grad(op: OpBuilder, of: Elements, g: ir.Value) -> ir.Value:
    e, _ = _exponentials(op, of)
    return of.added(op.Mul(e, of.beside(op.Div(of.per_window(g), of.sums(e)))))


def _exponentials(op: OpBuilder, of: Elements) -> tuple[ir.Value, ir.Value]:
    """exp(u) and u = x − max over the window."""
    u = op.Sub(of.elements, of.highest())
    return op.Exp(u), u


def _written(formula: Callable[[OpBuilder, Elements, ir.Value], ir.Value]) -> Callable[..., Any]:
    """The formula in the layout that is quickest, of what `fused` gives a body."""

    def emit(
        op: OpBuilder, x: ir.Value, g: ir.Value, window: Window, T: float | ir.Value
    ) -> ir.Value:
        return formula(op, elements_of(op, scaled(op, x, T), window), g)

    return emit


@fused("SoftMaxPoolGrad", _written(_soft_max_pool_grad))
def soft_max_pool_grad(
    op: OpBuilder, x: ir.Value, g: ir.Value, window: Window, T: float | ir.Value
) -> ir.Value:
    """Gradient of the softmax-weighted pool, through its weights (Satkiewicz, arXiv 2507.22832 v1).

    With w = softmax(x / T) over the window and s = Σ w_i x_i, it is g · w_i (1 + (x_i − s) / T),
    added up over the windows that hold x_i; padding counts as the value 0. With
    u = (x − max) / T, e = exp(u), Z = Σ e and ū = Σ e u / Z, this is e · g/Z · (u + 1 − ū).

    Args:
        x: the pool's input [N, C, *size].
        g: the cotangent of its output [N, C, *out].
    """
    return _soft_max_pool_grad(op, Columns(op, scaled(op, x, T), window, flat=False), g)


@fused("WeightedPoolGrad", _written(_weighted_pool_grad))
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
    return _weighted_pool_grad(op, Columns(op, scaled(op, x, T), window, flat=False), g)
