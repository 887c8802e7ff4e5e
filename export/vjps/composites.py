"""The composites of `onnxplain.export.composites`. What the forward pass computes is not repeated:
spelled out alike, it is shared."""

from __future__ import annotations

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.autodiff import Cotangents, Node
from onnxplain.export.operators import Axes, Kind, register_vjp
from onnxplain.export.tensors import axis_from_end
from onnxplain.export.vjps.activations import hard_sigmoid, sigmoid, softmax, swish
from onnxplain.export.vjps.normalisation import layer_normalization

register_vjp("onnxplain::Swish", kind=Kind.ACTIVATION)(swish)
register_vjp("onnxplain::RMSNormalization", kind=Kind.NORMALISATION)(layer_normalization)
register_vjp("onnxplain::AttentionWeights", kind=Kind.WEIGHTS, axes=Axes.ALONG)(softmax)
register_vjp("onnxplain::SigmoidGate", kind=Kind.WEIGHTS)(sigmoid)
register_vjp("onnxplain::HardSigmoidGate", kind=Kind.WEIGHTS)(hard_sigmoid)


@register_vjp("onnxplain::L2Normalization", kind=Kind.NORMALISATION)
def l2_normalization(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """y = x / d with d = max(n, ε), n = ‖x‖: (g − y · Σ g·y) / d where n > ε, else g / ε.

    The sum is over the normalised axes.
    """
    x, y = node.inputs[0], node.outputs[0]
    axes, epsilon = list(node.attributes.get_ints("axes")), node.attributes.get_float("epsilon")
    n = op.ReduceL2(x, axes, keepdims=1)
    along = op.ReduceSum(op.Mul(g, y), axes, keepdims=1)
    along = op.Where(op.Greater(n, epsilon), along, 0.0)
    return op.Div(op.Sub(g, op.Mul(y, along)), op.Max(n, epsilon))


@register_vjp("onnxplain::GlobalResponseNormalization", kind=Kind.NORMALISATION)
def global_response_normalization(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """y = x(1 + γu) + β with u = n / d, n = ‖x‖ over space, d = mean n over channels + ε.

    With h = γ · Σ g·x over space, the cotangent of u: that of n is (h − mean(h·u)) / d, and
    ∂n/∂x = x / n, 0 where n is 0 (as in PyTorch).
    """
    x, scale, _ = node.inputs
    space, channel = list(node.attributes.get_ints("axes")), axis_from_end(node, -1, x)
    n = op.ReduceL2(x, space, keepdims=1)
    mean = op.ReduceMean(n, [channel], keepdims=1)
    d = op.Add(mean, node.attributes.get_float("epsilon"))
    u = op.Div(n, d)
    gx = op.Mul(g, x)
    of_u = op.ReduceSum(gx, space, keepdims=1)
    h = op.Mul(of_u, scale)
    of_n = op.Div(op.Sub(h, op.ReduceMean(op.Mul(h, u), [channel], keepdims=1)), d)
    ratio = op.Where(op.Equal(n, 0.0), 0.0, op.Div(of_n, n))
    direct = op.Mul(g, op.Add(op.Mul(scale, u), 1.0))
    return [op.Add(direct, op.Mul(x, ratio)), lambda: op.Mul(gx, u), g]


@register_vjp("onnxplain::DynamicScale", "onnxplain::StopGradient", kind=Kind.FUNCTION)
def stop_gradient(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    return [None]
