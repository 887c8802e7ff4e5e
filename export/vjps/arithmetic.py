"""Elementwise arithmetic, with broadcasting."""

from __future__ import annotations

import math

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.errors import NoRuleError
from onnxplain.export.autodiff import Cotangents, Node
from onnxplain.export.tensors import constant_of, unbroadcast
from onnxplain.export.vjps.table import register_vjp

# ----- of two or more operands -----


@register_vjp("Add")
@register_vjp("Sum")
def add(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    return [unbroadcast(op, g, x, node.outputs[0]) for x in node.inputs]


@register_vjp("Mean")
def mean(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    share = op.Mul(g, 1.0 / len(node.inputs))
    return [unbroadcast(op, share, x, node.outputs[0]) for x in node.inputs]


@register_vjp("Sub")
def sub(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    (a, b), y = node.inputs, node.outputs[0]
    return [unbroadcast(op, g, a, y), unbroadcast(op, op.Neg(g), b, y)]


@register_vjp("Mul")
def mul(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    (a, b), y = node.inputs, node.outputs[0]
    return [unbroadcast(op, op.Mul(g, b), a, y), unbroadcast(op, op.Mul(g, a), b, y)]


@register_vjp("Div")
def div(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    (a, b), y = node.inputs, node.outputs[0]
    ga = op.Div(g, b)
    return [unbroadcast(op, ga, a, y), unbroadcast(op, op.Neg(op.Mul(ga, y)), b, y)]


@register_vjp("Pow")
def power(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """e·x^(e−1) and y·ln x; where x is 0 the exponent passes nothing, as in PyTorch."""
    (x, e), y = node.inputs, node.outputs[0]
    exponent = op.CastLike(e, x)
    known = ir.convenience.get_const_tensor(e)
    if known is not None and (known.numpy() == 2).all():
        slope = op.Mul(exponent, x)
    else:
        slope = op.Mul(exponent, op.Pow(x, op.Sub(exponent, 1.0)))
    logarithm = op.Log(op.Where(op.Equal(x, 0.0), 1.0, x))
    ge = op.Mul(g, op.Mul(y, logarithm))
    return [unbroadcast(op, op.Mul(g, slope), x, y), unbroadcast(op, ge, e, y)]


@register_vjp("Mod")
def modulo(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """a − b·q, the whole number q being constant almost everywhere."""
    (a, b), y = node.inputs, node.outputs[0]
    q = op.Div(op.Sub(a, y), b)
    return [unbroadcast(op, g, a, y), unbroadcast(op, op.Neg(op.Mul(g, q)), b, y)]


@register_vjp("Max", "Min")
def extremum(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """Operands that tie for the extremum share the cotangent equally."""
    y = node.outputs[0]
    wins = [op.CastLike(op.Equal(x, y), y) for x in node.inputs]
    share = op.Div(g, op.Sum(*wins))
    pairs = zip(node.inputs, wins, strict=True)
    return [unbroadcast(op, op.Mul(share, win), x, y) for x, win in pairs]


@register_vjp("Where")
def where(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    (condition, a, b), y = node.inputs, node.outputs[0]
    ga, gb = op.Where(condition, g, 0.0), op.Where(condition, 0.0, g)
    return [None, unbroadcast(op, ga, a, y), unbroadcast(op, gb, b, y)]


# ----- of one operand -----


@register_vjp("Identity")
def identity(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    return g


@register_vjp("Dropout")
def dropout(op: OpBuilder, node: Node, g: ir.Value, *_mask: None) -> Cotangents:
    training = constant_of([*node.inputs, None, None][2], "the training mode of Dropout")
    if training is not None and training:
        raise NoRuleError(
            f"Dropout {node.name!r} is in training mode; export the network in evaluation mode"
        )
    return g


@register_vjp("Cast", "CastLike")
def cast(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """Between floats the identity; from or to integers and booleans constant almost everywhere.

    Not so from the integers that quantised products count in: their own rule decides, or its lack.
    """
    x, y = node.inputs[0], node.outputs[0]
    producer = x.producer()
    if producer is not None and producer.op_type in ("ConvInteger", "MatMulInteger"):
        return [g, None]
    if not all(v.dtype is None or v.dtype.is_floating_point() for v in (x, y)):
        return [None, None]
    return [op.CastLike(g, x), None]


@register_vjp("Neg")
def neg(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    return op.Neg(g)


@register_vjp("Abs")
def absolute(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    return op.Mul(g, op.Sign(node.inputs[0]))


@register_vjp("Exp")
def exp(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    return op.Mul(g, node.outputs[0])


@register_vjp("Log")
def log(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    return op.Div(g, node.inputs[0])


@register_vjp("Sqrt")
def sqrt(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    return op.Div(op.Mul(g, 0.5), node.outputs[0])


@register_vjp("Reciprocal")
def reciprocal(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    y = node.outputs[0]
    return op.Neg(op.Mul(g, op.Mul(y, y)))


@register_vjp("Erf")
def erf(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    x = node.inputs[0]
    return op.Mul(g, op.Mul(op.Exp(op.Neg(op.Mul(x, x))), 2.0 / math.sqrt(math.pi)))


@register_vjp("Sin")
def sin(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    return op.Mul(g, op.Cos(node.inputs[0]))


@register_vjp("Cos")
def cos(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    return op.Neg(op.Mul(g, op.Sin(node.inputs[0])))


@register_vjp("Tan")
def tan(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    y = node.outputs[0]
    return op.Mul(g, op.Add(op.Mul(y, y), 1.0))


@register_vjp("Sinh")
def sinh(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    return op.Mul(g, op.Cosh(node.inputs[0]))


@register_vjp("Cosh")
def cosh(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    return op.Mul(g, op.Sinh(node.inputs[0]))


@register_vjp("Asin")
def asin(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    x = node.inputs[0]
    return op.Div(g, op.Sqrt(op.Sub(1.0, op.Mul(x, x))))


@register_vjp("Acos")
def acos(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    x = node.inputs[0]
    return op.Neg(op.Div(g, op.Sqrt(op.Sub(1.0, op.Mul(x, x)))))


@register_vjp("Atan")
def atan(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    x = node.inputs[0]
    return op.Div(g, op.Add(op.Mul(x, x), 1.0))


@register_vjp("Asinh")
def asinh(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    x = node.inputs[0]
    return op.Div(g, op.Sqrt(op.Add(op.Mul(x, x), 1.0)))


@register_vjp("Acosh")
def acosh(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    x = node.inputs[0]
    return op.Div(g, op.Sqrt(op.Sub(op.Mul(x, x), 1.0)))


@register_vjp("Atanh")
def atanh(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    x = node.inputs[0]
    return op.Div(g, op.Sub(1.0, op.Mul(x, x)))


@register_vjp("Floor", "Ceil", "Round", "Sign")
def step(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """Constant wherever it has a slope at all."""
    return [None]
