"""Normalisations, in inference mode."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.errors import NoRuleError
from onnxplain.export.autodiff import Cotangents, Node
from onnxplain.export.tensors import along_axis, attribute, constant, rank, size_of
from onnxplain.export.vjps.table import register_vjp


@register_vjp("BatchNormalization")
def batch_normalization(op: OpBuilder, node: Node, g: ir.Value, *_statistics: None) -> Cotangents:
    """Linear in inference: each channel is scaled by γ / √(variance + ε)."""
    if attribute(node, "training_mode", 0):
        raise NoRuleError(
            f"BatchNormalization {node.name!r} is in training mode; export the network in "
            "evaluation mode"
        )
    x, scale, _, _, variance = node.inputs
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    slope = op.Div(scale, op.Sqrt(op.Add(variance, epsilon)))
    spatial = list(range(1, rank(x) - 1))
    return op.Mul(g, op.Unsqueeze(slope, spatial) if spatial else slope)


@register_vjp("LRN")
def lrn(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """y = x · d^−β with d = k + α/n · Σ_window x² over channels.

    So ∂: g · d^−β − 2αβ/n · x · Σ_window g · y / d, the window seen from the other side.
    """
    x, y = node.inputs[0], node.outputs[0]
    size = attribute(node, "size", 1)
    alpha = node.attributes.get_float("alpha", 1e-4) / size
    beta = node.attributes.get_float("beta", 0.75)
    at = np.arange(size_of(x, 1))
    lag = at[:, None] - at[None, :]  # channel i is in the window of channel j
    window = ((lag >= -((size - 1) // 2)) & (lag <= size // 2)).astype(float)
    axis = 1 - rank(x)
    sums = along_axis(op, op.Mul(x, x), x, axis, window)
    bias = node.attributes.get_float("bias", 1.0)
    d = op.Add(op.Mul(sums, alpha), bias)
    shared = along_axis(op, op.Mul(g, op.Div(y, d)), x, axis, window.T)
    own = op.Mul(g, op.Pow(d, constant(op, np.array(-beta), x)))
    return op.Sub(own, op.Mul(op.Mul(x, 2.0 * alpha * beta), shared))
