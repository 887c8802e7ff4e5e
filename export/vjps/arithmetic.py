"""Elementwise arithmetic, with broadcasting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.errors import NoRuleError
from onnxplain.export.autodiff import Cotangents, Node
from onnxplain.export.operators import (
    Axes,
    Half,
    Kind,
    Linear,
    any_sign,
    as_all,
    never_negative,
    register_vjp,
)
from onnxplain.export.tensors import array_of, constant_of
from onnxplain.export.values import non_negative
from onnxplain.export.vmap import cast_like

# ----- of two or more operands -----


@register_vjp("Add", "Sum", kind=Kind.SUM)
def add(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    return [g] * len(node.inputs)


@register_vjp("Mean", kind=Kind.SUM, on_cuda=False)
def mean(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    return [op.Mul(g, 1.0 / len(node.inputs))] * len(node.inputs)


@register_vjp("Sub", kind=Kind.SUM, sign=any_sign)
def sub(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    return [g, lambda: op.Neg(g)]


@register_vjp("Mul", kind=Kind.PRODUCT, linear=Linear.EACH, homogeneous=(0, 1), sign=as_all)
def mul(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    a, b = node.inputs
    return [lambda: op.Mul(g, b), lambda: op.Mul(g, a)]


@register_vjp("Div", kind=Kind.PRODUCT, linear=Linear.FIRST, homogeneous=(0,), sign=as_all)
def div(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    ga = op.Div(g, node.inputs[1])
    return [ga, lambda: op.Neg(op.Mul(ga, node.outputs[0]))]


@register_vjp("Pow", kind=Kind.PRODUCT, half=Half.FLOAT32)
def power(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """e·x^(e−1) and y·ln x; where x is 0 the exponent passes nothing, as in PyTorch.

    Nor does x at a root's, whose slope is infinite there.
    """
    (x, e), y = node.inputs, node.outputs[0]

    def of_base() -> ir.Value:
        exponent = op.CastLike(e, x)
        known = array_of(e)
        if known is not None and (known == 2).all():
            return op.Mul(g, op.Mul(exponent, x))
        gx = op.Mul(g, op.Mul(exponent, op.Pow(x, op.Sub(exponent, 1.0))))
        if known is not None and (known >= 1).all():
            return gx
        return op.Where(op.And(op.Equal(x, 0.0), op.Less(exponent, 1.0)), 0.0, gx)

    def of_exponent() -> ir.Value:
        logarithm = op.Log(op.Where(op.Equal(x, 0.0), 1.0, x))
        return op.Mul(g, op.Mul(y, logarithm))

    return [of_base, of_exponent]


@register_vjp("Mod", kind=Kind.FUNCTION)
def modulo(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """a − b·q, the whole number q being constant almost everywhere."""
    (a, b), y = node.inputs, node.outputs[0]
    return [g, lambda: op.Neg(op.Mul(g, op.Div(op.Sub(a, y), b)))]


@register_vjp("Max", "Min", kind=Kind.EXTREMUM)
def extremum(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """Operands that tie for the extremum share the cotangent equally."""
    y = node.outputs[0]
    wins = [op.CastLike(op.Equal(x, y), y) for x in node.inputs]
    share = op.Div(g, op.Sum(*wins))
    return [partial(op.Mul, share, win) for win in wins]


def _of_both(node: Node) -> Sequence[ir.Value | None]:
    return node.inputs[1:]


@register_vjp(
    "Where",
    kind=Kind.MOVE,
    axes=Axes.ELEMENTWISE,
    linear=Linear.TOGETHER,
    homogeneous=(1, 2),
    sign=_of_both,
)
def where(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    condition = node.inputs[0]
    return [None, lambda: op.Where(condition, g, 0.0), lambda: op.Where(condition, 0.0, g)]


# ----- of one operand -----


@register_vjp("Identity", kind=Kind.MOVE, axes=Axes.ELEMENTWISE)
def identity(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    return g


@register_vjp("Dropout", kind=Kind.MOVE, axes=Axes.ELEMENTWISE)
def dropout(op: OpBuilder, node: Node, g: ir.Value, *_mask: None) -> Cotangents:
    training = constant_of([*node.inputs, None, None][2], "the training mode of Dropout")
    if training is not None and training:
        raise NoRuleError(
            f"Dropout {node.name!r} is in training mode; export the network in evaluation mode"
        )
    return g


@register_vjp("Cast", kind=Kind.MOVE, axes=Axes.ELEMENTWISE, homogeneous=())
@register_vjp("CastLike", kind=Kind.MOVE, axes=Axes.ELEMENTWISE, homogeneous=(), batching=cast_like)
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


@register_vjp("Neg", kind=Kind.ACTIVATION, linear=Linear.FIRST)
def neg(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    return op.Neg(g)


@register_vjp("Abs", kind=Kind.ACTIVATION, sign=never_negative)
def absolute(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    return op.Mul(g, op.Sign(node.inputs[0]))


@register_vjp("Exp", kind=Kind.ACTIVATION, sign=never_negative, half=Half.FLOAT32)
def exp(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    return op.Mul(g, node.outputs[0])


@register_vjp("Log", kind=Kind.ACTIVATION, half=Half.FLOAT32)
def log(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    return op.Div(g, node.inputs[0])


@register_vjp("Sqrt", kind=Kind.ACTIVATION, sign=never_negative, half=Half.FLOAT32)
def sqrt(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """½ g / y; 0 where y is 0, as PyTorch's `std` and `norm` have it, which are spelled by it."""
    y = node.outputs[0]
    gx = op.Div(op.Mul(g, 0.5), y)
    return gx if _positive(node.inputs[0]) else op.Where(op.Equal(y, 0.0), 0.0, gx)


def _positive(x: ir.Value) -> bool:
    """Whether x is what is nowhere negative, and something more."""
    node = x.producer()
    if node is None or node.op_type != "Add":
        return False
    known = map(array_of, node.inputs)
    more = any(c is not None and bool((c > 0).all()) for c in known)
    return more and non_negative(x)


@register_vjp("Reciprocal", kind=Kind.ACTIVATION, half=Half.FLOAT32)
def reciprocal(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    y = node.outputs[0]
    return op.Neg(op.Mul(g, op.Mul(y, y)))


@register_vjp("Erf", kind=Kind.ACTIVATION)
def erf(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    x = node.inputs[0]
    return op.Mul(g, op.Mul(op.Exp(op.Neg(op.Mul(x, x))), 2.0 / math.sqrt(math.pi)))


@register_vjp("Sin", kind=Kind.FUNCTION)
def sin(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    return op.Mul(g, op.Cos(node.inputs[0]))


@register_vjp("Cos", kind=Kind.FUNCTION)
def cos(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    return op.Neg(op.Mul(g, op.Sin(node.inputs[0])))


@register_vjp("Tan", kind=Kind.FUNCTION, on_cuda=False)
def tan(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    y = node.outputs[0]
    return op.Mul(g, op.Add(op.Mul(y, y), 1.0))


@register_vjp("Sinh", kind=Kind.FUNCTION, on_cuda=False)
def sinh(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    return op.Mul(g, op.Cosh(node.inputs[0]))


@register_vjp("Cosh", kind=Kind.FUNCTION, on_cuda=False)
def cosh(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    return op.Mul(g, op.Sinh(node.inputs[0]))


@register_vjp("Asin", kind=Kind.FUNCTION, on_cuda=False)
def asin(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    x = node.inputs[0]
    return op.Div(g, op.Sqrt(op.Sub(1.0, op.Mul(x, x))))


@register_vjp("Acos", kind=Kind.FUNCTION, on_cuda=False)
def acos(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    x = node.inputs[0]
    return op.Neg(op.Div(g, op.Sqrt(op.Sub(1.0, op.Mul(x, x)))))


@register_vjp("Atan", kind=Kind.FUNCTION, on_cuda=False)
def atan(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    x = node.inputs[0]
    return op.Div(g, op.Add(op.Mul(x, x), 1.0))


@register_vjp("Asinh", kind=Kind.FUNCTION, on_cuda=False)
def asinh(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    x = node.inputs[0]
    return op.Div(g, op.Sqrt(op.Add(op.Mul(x, x), 1.0)))


@register_vjp("Acosh", kind=Kind.FUNCTION, on_cuda=False)
def acosh(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    x = node.inputs[0]
    return op.Div(g, op.Sqrt(op.Sub(op.Mul(x, x), 1.0)))


@register_vjp("Atanh", kind=Kind.FUNCTION, on_cuda=False)
def atanh(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    x = node.inputs[0]
    return op.Div(g, op.Sub(1.0, op.Mul(x, x)))


@register_vjp("Floor", "Ceil", "Round", "Sign", kind=Kind.FUNCTION)
def step(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """Constant wherever it has a slope at all."""
    return [None]
