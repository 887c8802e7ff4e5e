"""A step of Adam (Kingma & Ba 2015, arXiv 1412.6980), algorithm 1, as PyTorch computes it."""

from __future__ import annotations

import onnx_ir as ir
from onnxscript import OpBuilder

BETAS, EPSILON = (0.5, 0.9), 1e-8
"""VITAL's."""


def adam(
    op: OpBuilder,
    x: ir.Value,
    g: ir.Value,
    moments: tuple[ir.Value, ir.Value],
    rate: ir.Value,
    t: ir.Value,
    betas: tuple[float, float] = BETAS,
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """x and its two moments after one step.

    m ← β₁ m + (1 − β₁) g, v ← β₂ v + (1 − β₂) g², x ← x − rate · m̂ / (√v̂ + ε), where
    m̂ = m / (1 − β₁ᵗ) and v̂ = v / (1 − β₂ᵗ); t counts from 1.
    """
    first, second = betas
    m = op.Add(op.Mul(moments[0], first), op.Mul(g, 1 - first))
    v = op.Add(op.Mul(moments[1], second), op.Mul(op.Mul(g, g), 1 - second))
    unbiased = [
        op.Div(moment, op.Sub(1.0, op.Pow(op.CastLike(beta, t), t)))
        for moment, beta in ((m, first), (v, second))
    ]
    step = op.Div(unbiased[0], op.Add(op.Sqrt(unbiased[1]), EPSILON))
    return op.Sub(x, op.Mul(step, rate)), m, v
