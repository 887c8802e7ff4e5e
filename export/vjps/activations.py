"""Activations. Where an activation has a kink, its cotangent there is PyTorch's."""

from __future__ import annotations

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.autodiff import Cotangents, Node
from onnxplain.export.tensors import axis_from_end
from onnxplain.export.vjps.table import register_vjp


@register_vjp("Relu")
def relu(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    return op.Where(op.Greater(node.inputs[0], 0.0), g, 0.0)


@register_vjp("LeakyRelu")
def leaky_relu(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    alpha = node.attributes.get_float("alpha", 0.01)
    return op.Where(op.Greater(node.inputs[0], 0.0), g, op.Mul(g, alpha))


@register_vjp("PRelu")
def prelu(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    x, slope = node.inputs
    return op.Where(op.Greater(x, 0.0), g, op.Mul(g, slope))


@register_vjp("ThresholdedRelu")
def thresholded_relu(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    alpha = node.attributes.get_float("alpha", 1.0)
    return op.Where(op.Greater(node.inputs[0], alpha), g, 0.0)


@register_vjp("Clip")
def clip(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    x, low, high = [*node.inputs, None, None][:3]
    if low is not None:
        g = op.Where(op.Greater(x, low), g, 0.0)
    if high is not None:
        g = op.Where(op.Less(x, high), g, 0.0)
    return g


@register_vjp("Elu")
def elu(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """α(eˣ − 1) below zero, so its slope there is y + α."""
    alpha = node.attributes.get_float("alpha", 1.0)
    return op.Where(op.Greater(node.inputs[0], 0.0), g, op.Mul(g, op.Add(node.outputs[0], alpha)))


@register_vjp("Selu")
def selu(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    alpha = node.attributes.get_float("alpha", 1.6732632423543772)
    gamma = node.attributes.get_float("gamma", 1.0507009873554805)
    below = op.Mul(g, op.Add(node.outputs[0], alpha * gamma))
    return op.Where(op.Greater(node.inputs[0], 0.0), op.Mul(g, gamma), below)


@register_vjp("Celu")
def celu(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    alpha = node.attributes.get_float("alpha", 1.0)
    below = op.Mul(g, op.Add(op.Mul(node.outputs[0], 1.0 / alpha), 1.0))
    return op.Where(op.Greater(node.inputs[0], 0.0), g, below)


@register_vjp("Sigmoid")
def sigmoid(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    y = node.outputs[0]
    return op.Mul(g, op.Mul(y, op.Sub(1.0, y)))


@register_vjp("Tanh")
def tanh(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    y = node.outputs[0]
    return op.Mul(g, op.Sub(1.0, op.Mul(y, y)))


@register_vjp("Softplus")
def softplus(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    return op.Mul(g, op.Sigmoid(node.inputs[0]))


@register_vjp("Softsign")
def softsign(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    scale = op.Add(op.Abs(node.inputs[0]), 1.0)
    return op.Div(g, op.Mul(scale, scale))


@register_vjp("HardSigmoid")
def hard_sigmoid(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    y = node.outputs[0]
    alpha = node.attributes.get_float("alpha", 0.2)
    between = op.And(op.Greater(y, 0.0), op.Less(y, 1.0))
    return op.Where(between, op.Mul(g, alpha), 0.0)


@register_vjp("HardSwish")
def hard_swish(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """x · clip(x/6 + ½, 0, 1): slope x/3 + ½ between −3 and 3."""
    x = node.inputs[0]
    between = op.Mul(g, op.Add(op.Mul(x, 1.0 / 3.0), 0.5))
    above = op.Where(op.Greater(x, 0.0), g, 0.0)
    return op.Where(op.Less(op.Abs(x), 3.0), between, above)


@register_vjp("Softmax")
def softmax(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    y = node.outputs[0]
    axis = axis_from_end(node, -1, y)
    return op.Mul(y, op.Sub(g, op.ReduceSum(op.Mul(g, y), [axis], keepdims=1)))


@register_vjp("LogSoftmax")
def log_softmax(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    y = node.outputs[0]
    axis = axis_from_end(node, -1, y)
    return op.Sub(g, op.Mul(op.Exp(y), op.ReduceSum(g, [axis], keepdims=1)))
