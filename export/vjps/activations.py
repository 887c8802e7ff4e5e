"""Activations. Where an activation has a kink, its cotangent there is PyTorch's."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.autodiff import Cotangents, Node
from onnxplain.export.operators import Axes, Half, Kind, never_negative, register_vjp
from onnxplain.export.tensors import axis_from_end


@register_vjp("Relu", kind=Kind.RECTIFIER, homogeneous=(0,), sign=never_negative)
def relu(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    return op.Where(op.Greater(node.inputs[0], 0.0), g, 0.0)


@register_vjp("LeakyRelu", kind=Kind.RECTIFIER, homogeneous=(0,))
def leaky_relu(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    alpha = node.attributes.get_float("alpha", 0.01)
    return op.Where(op.Greater(node.inputs[0], 0.0), g, op.Mul(g, alpha))


@register_vjp("PRelu", kind=Kind.RECTIFIER, homogeneous=(0,))
def prelu(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    x, slope = node.inputs
    gx = op.Where(op.Greater(x, 0.0), g, op.Mul(g, slope))
    return [gx, lambda: op.Mul(g, op.Min(x, 0.0))]


@register_vjp("ThresholdedRelu", kind=Kind.RECTIFIER)
def thresholded_relu(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    alpha = node.attributes.get_float("alpha", 1.0)
    return op.Where(op.Greater(node.inputs[0], alpha), g, 0.0)


def _not_below_its_bound(node: Node) -> Sequence[ir.Value | None]:
    low = [*node.inputs, None][1]
    return node.inputs[:1] if low is None else [low]


@register_vjp("Clip", kind=Kind.ACTIVATION, homogeneous=(0, 1, 2), sign=_not_below_its_bound)
def clip(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    x, low, high = [*node.inputs, None, None][:3]
    gx = g
    if low is not None:
        gx = op.Where(op.Greater(x, low), gx, 0.0)
    if high is not None:
        gx = op.Where(op.Less(x, high), gx, 0.0)

    def of_low() -> ir.Value:
        """Where x is below it, and it is below the upper bound."""
        gl = op.Where(op.Less(x, low), g, 0.0)
        return gl if high is None else op.Where(op.Less(low, high), gl, 0.0)

    def of_high() -> ir.Value:
        """Where it is below the larger of x and the lower bound."""
        reached = x if low is None else op.Max(x, low)
        return op.Where(op.Greater(reached, high), g, 0.0)

    return [gx, of_low, of_high]


@register_vjp("Elu", kind=Kind.RECTIFIER)
def elu(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """α(eˣ − 1) below zero, so its slope there is y + α."""
    alpha = node.attributes.get_float("alpha", 1.0)
    return op.Where(op.Greater(node.inputs[0], 0.0), g, op.Mul(g, op.Add(node.outputs[0], alpha)))


@register_vjp("Selu", kind=Kind.RECTIFIER)
def selu(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    alpha = node.attributes.get_float("alpha", 1.6732632423543772)
    gamma = node.attributes.get_float("gamma", 1.0507009873554805)
    below = op.Mul(g, op.Add(node.outputs[0], alpha * gamma))
    return op.Where(op.Greater(node.inputs[0], 0.0), op.Mul(g, gamma), below)


@register_vjp("Celu", kind=Kind.RECTIFIER, on_cuda=False)
def celu(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    alpha = node.attributes.get_float("alpha", 1.0)
    below = op.Mul(g, op.Add(op.Mul(node.outputs[0], 1.0 / alpha), 1.0))
    return op.Where(op.Greater(node.inputs[0], 0.0), g, below)


@register_vjp("Sigmoid", kind=Kind.ACTIVATION, sign=never_negative)
def sigmoid(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    y = node.outputs[0]
    return op.Mul(g, op.Mul(y, op.Sub(1.0, y)))


@register_vjp("Tanh", kind=Kind.ACTIVATION)
def tanh(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    y = node.outputs[0]
    return op.Mul(g, op.Sub(1.0, op.Mul(y, y)))


@register_vjp("Softplus", kind=Kind.RECTIFIER, sign=never_negative, half=Half.FLOAT32)
def softplus(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    return op.Mul(g, op.Sigmoid(node.inputs[0]))


@register_vjp("Softsign", kind=Kind.ACTIVATION)
def softsign(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    scale = op.Add(op.Abs(node.inputs[0]), 1.0)
    return op.Div(g, op.Mul(scale, scale))


@register_vjp("HardSigmoid", kind=Kind.ACTIVATION, sign=never_negative)
def hard_sigmoid(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    y = node.outputs[0]
    alpha = node.attributes.get_float("alpha", 0.2)
    between = op.And(op.Greater(y, 0.0), op.Less(y, 1.0))
    return op.Where(between, op.Mul(g, alpha), 0.0)


@register_vjp("HardSwish", kind=Kind.ACTIVATION, half=Half.FLOAT32_IN_BFLOAT16)
def hard_swish(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """x · clip(x/6 + ½, 0, 1): slope x/3 + ½ between −3 and 3."""
    x = node.inputs[0]
    between = op.Mul(g, op.Add(op.Mul(x, 1.0 / 3.0), 0.5))
    above = op.Where(op.Greater(x, 0.0), g, 0.0)
    return op.Where(op.Less(op.Abs(x), 3.0), between, above)


@register_vjp("Gelu", kind=Kind.ACTIVATION)
def gelu(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """x·Φ(x): slope Φ(x) + x·φ(x). By tanh: Φ̃ = ½(1 + t), t = tanh(k(x + c·x³)), k = √(2/π)."""
    x = node.inputs[0]
    if node.attributes.get_string("approximate", "none") == "none":
        u = op.Mul(x, math.sqrt(0.5))
        normal = op.Mul(op.Add(op.Erf(u), 1.0), 0.5)
        density = op.Exp(op.Neg(op.Mul(u, u)))  # x·φ(x) = u·e^(−u²) / √π
        return op.Mul(g, op.Add(normal, op.Mul(op.Mul(u, 1.0 / math.sqrt(math.pi)), density)))
    k, c = math.sqrt(2.0 / math.pi), 0.044715
    square = op.Mul(x, x)
    u = op.Mul(op.Mul(x, k), op.Add(op.Mul(square, c), 1.0))
    t = op.Tanh(u)
    inner = op.Mul(op.Mul(x, k), op.Add(op.Mul(square, 3.0 * c), 1.0))  # x·du/dx
    bent = op.Mul(op.Sub(1.0, op.Mul(t, t)), inner)
    return op.Mul(g, op.Mul(op.Add(op.Add(t, 1.0), bent), 0.5))


@register_vjp("Swish", kind=Kind.ACTIVATION)
def swish(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """x·σ(αx) = y: slope σ(αx) + α·y·(1 − σ(αx))."""
    x, y = node.inputs[0], node.outputs[0]
    alpha = node.attributes.get_float("alpha", 1.0)
    gate = op.Sigmoid(x if alpha == 1.0 else op.Mul(x, alpha))
    through = y if alpha == 1.0 else op.Mul(y, alpha)
    return op.Mul(g, op.Add(gate, op.Mul(through, op.Sub(1.0, gate))))


@register_vjp("Mish", kind=Kind.ACTIVATION, half=Half.FLOAT32_IN_BFLOAT16)
def mish(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """x·t with t = tanh(softplus(x)): slope t + x·σ(x)·(1 − t²)."""
    x = node.inputs[0]
    t = op.Tanh(op.Softplus(x))
    bent = op.Mul(op.Mul(x, op.Sigmoid(x)), op.Sub(1.0, op.Mul(t, t)))
    return op.Mul(g, op.Add(t, bent))


@register_vjp("Shrink", kind=Kind.ACTIVATION)
def shrink(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    threshold = node.attributes.get_float("lambd", 0.5)
    return op.Where(op.Greater(op.Abs(node.inputs[0]), threshold), g, 0.0)


@register_vjp("Hardmax", axes=Axes.ALONG, sign=never_negative, on_cuda=False)
def hardmax(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """Constant wherever it has a slope at all."""
    return [None]


@register_vjp("Softmax", axes=Axes.ALONG, sign=never_negative, half=Half.FLOAT32)
def softmax(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    y = without_nans(op, node.outputs[0])
    axis = axis_from_end(node, -1, node.outputs[0])
    return op.Mul(y, op.Sub(g, op.ReduceSum(op.Mul(g, y), [axis], keepdims=1)))


def without_nans(op: OpBuilder, y: ir.Value) -> ir.Value:
    """y; 0 in its NaNs where the network may replace them, those of what is all masked."""
    users = [use.node for use in y.uses()]
    users += [
        use.node for user in users if user.op_type == "Cast" for use in user.outputs[0].uses()
    ]
    replaced = any(user.op_type in ("IsNaN", "Where") for user in users)
    return op.Where(op.IsNaN(y), 0.0, y) if replaced else y


@register_vjp("LogSoftmax", axes=Axes.ALONG, half=Half.FLOAT32)
def log_softmax(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    y = node.outputs[0]
    axis = axis_from_end(node, -1, y)
    return op.Sub(g, op.Mul(op.Exp(y), op.ReduceSum(g, [axis], keepdims=1)))
