"""Quantisers, explained straight through (Bengio et al., arXiv 1308.3432).

Rounding has a gradient of zero almost everywhere. The straight-through estimator takes
Q∘DQ, which differs from the identity by rounding and saturation only, for the identity: a
cotangent passes it unchanged. Between the two, the cotangent of a quantised value is that of the
number it stands for. Weights stay stored as integers; nothing flows to them, nor to the scale of a
quantiser.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.autodiff import Cotangents, Node, unbroadcast
from onnxplain.export.composites import DOMAIN
from onnxplain.export.operators import Axes, Kind, Linear, any_sign, as_first, register_vjp
from onnxplain.export.tensors import (
    attribute,
    axis_from_end,
    dims,
    pad_axis,
    rank,
    reshape,
    size_of,
)

LOWEST = {
    ir.DataType.UINT8: 0,
    ir.DataType.INT8: -128,
    ir.DataType.UINT16: 0,
    ir.DataType.INT16: -32768,
}
"""Type → the least of its values."""


def starts_at_zero(node: Node) -> bool:
    """Whether the least value that a (de)quantiser knows is zero."""
    zero_point = node.inputs[2] if len(node.inputs) > 2 else None
    if zero_point is None and node.op_type == "DequantizeLinear":
        return bool(node.inputs[0].dtype == ir.DataType.UINT8)
    if zero_point is None:
        return attribute(node, "output_dtype", ir.DataType.UINT8) == ir.DataType.UINT8
    tensor = ir.convenience.get_const_tensor(zero_point)
    lowest = None if tensor is None else LOWEST.get(tensor.dtype)
    return tensor is not None and lowest is not None and bool((tensor.numpy() == lowest).all())


def _not_below_zero(node: Node) -> Sequence[ir.Value | None] | None:
    return () if starts_at_zero(node) else None


@register_vjp(
    "QuantizeLinear",
    kind=Kind.MOVE,
    axes=Axes.ALONG,
    linear=Linear.NONE,
    homogeneous=(),
    sign=any_sign,
    float32_inputs=(1,),
)
@register_vjp(
    "DequantizeLinear",
    kind=Kind.MOVE,
    axes=Axes.ALONG,
    linear=Linear.NONE,
    homogeneous=(),
    sign=_not_below_zero,
    float32_inputs=(1,),
)
def straight_through(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """(x − zero point) · scale is linear in the scale; a quantiser's has none."""
    if node.op_type == "QuantizeLinear":
        return g

    def of_scale() -> ir.Value:
        scale, y = node.inputs[1], node.outputs[0]
        each = op.Mul(g, y)
        axis, block = axis_from_end(node, 1, y), attribute(node, "block_size", 0)
        if block:
            missing = size_of(scale, axis) * block - size_of(y, axis)  # in the last one
            each = pad_axis(op, each, each, axis, 0, missing)
            blocks = [*dims(scale)[: rank(y) + axis + 1], block, *dims(scale)[rank(y) + axis + 1 :]]
            each = op.ReduceSum(reshape(op, each, blocks), [axis], keepdims=0)
        elif rank(scale) == 1 and rank(y) > 1:
            others = [i for i in range(-rank(y), 0) if i != axis]
            each = op.ReduceSum(each, others, keepdims=0)
        return op.Div(unbroadcast(op, each, scale), scale)

    return [g, of_scale]


@register_vjp(
    "onnxplain::DynamicSteps",
    kind=Kind.PRODUCT,
    axes=Axes.OTHER,
    linear=Linear.NONE,
    homogeneous=(),
    sign=as_first,
)
def over_the_scale(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """x / scale, rounded; the scale, of the least and the greatest number, is held constant."""
    scale = op.builder.call_op("DynamicScale", node.inputs, {}, domain=DOMAIN, version=1)
    assert isinstance(scale, ir.Value)
    scale.type, scale.shape = g.type, ir.Shape([])
    return op.Div(g, scale)
