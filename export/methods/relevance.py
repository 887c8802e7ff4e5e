"""The rules of layer-wise relevance propagation: what each operator does with its relevance, but
for layers with weights, whose rules are in `onnxplain.export.methods.weighted`.

A rule is one of `onnxplain.export.autodiff` in which R, the relevance of the node's output, stands
where the cotangent stands. What a value contributes to a linear layer is itself times its weight,
so the relevance that comes back is x times the layer's ordinary cotangent of R / z, z being the sum
of the contributions: each rule here chooses z and calls the table of `onnxplain.export.vjps`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.errors import NoRuleError
from onnxplain.export.autodiff import Cotangents, Node, Rule, cotangent_of, operator_name, shaped_as
from onnxplain.export.operators import VJPS, row_of
from onnxplain.export.replay import again
from onnxplain.export.values import is_weight, non_negative, varying

# ----- contributions -----


def layer_on(op: OpBuilder, node: Node, inputs: Sequence[ir.Value | None], **changed: Any) -> Node:
    """The node once more, on other inputs of the same shapes and dtypes."""
    return with_shapes_of(node, again(op, node, inputs, **changed))


def with_shapes_of(node: Node, outputs: Sequence[ir.Value]) -> Node:
    """The node that made these, which have the shapes and dtypes of another's outputs."""
    for y, z in zip(node.outputs, outputs, strict=False):
        z.shape, z.type = y.shape, y.type
    made = outputs[0].producer()
    assert made is not None
    return made


def pulled(op: OpBuilder, node: Node, s: ir.Value, index: int = 0) -> ir.Value:
    """The ordinary cotangent of one input of a node, given that of its output."""
    found = cotangent_of(op, node, as_cotangent(op, node, s), index)
    assert found is not None
    return shaped_as(found, node.inputs[index])


def stabilised(op: OpBuilder, z: ir.Value, epsilon: float) -> ir.Value:
    """z + ε · sign(z), the sign of 0 being +1 (as in zennit)."""
    return op.Where(op.Less(z, 0.0), op.Sub(z, epsilon), op.Add(z, epsilon))


def positive(op: OpBuilder, x: ir.Value) -> ir.Value:
    """x⁺, which is x itself where the graph tells that it is not negative."""
    return x if non_negative(x) else op.Relu(x)


def total(op: OpBuilder, terms: Sequence[ir.Value]) -> ir.Value:
    """Their sum."""
    return terms[0] if len(terms) == 1 else op.Sum(*terms)


# ----- products -----


def receivers(node: Node) -> list[int]:
    """Which operands of a product take its relevance: those that vary, but no weights of others."""
    found = varying(node)
    return [i for i in found if len(found) == 1 or not is_weight(node.inputs[i])]


def elementwise_product(op: OpBuilder, node: Node, R: ir.Value) -> Cotangents:
    """All to what is weighted and nothing to its weight; to two values half each.

    A divisor or an exponent that varies is a weight.
    """
    takers = receivers(node)
    if node.op_type != "Mul":
        takers = takers[:1]
    share = op.Mul(R, 1.0 / len(takers)) if len(takers) > 1 else R
    return [share if i in takers else None for i in range(len(node.inputs))]


# ----- pools, reductions, interpolation: linear in their first input, no weight negative -----


def pool_plus(
    op: OpBuilder, node: Node, R: ir.Value, *_indices: None, epsilon: float
) -> Cotangents:
    """R_i = Σ_j x_i⁺ w_ij / (z_j + ε) · R_j, z_j the sum over i: z⁺. A maximum is an average."""
    x = positive(op, node.inputs[0])
    average = row_of(operator_name(node)).average
    if average is not None:
        kept = {k: a.value for k, a in node.attributes.items() if k != "storage_order"}
        z = op.builder.call_op(average, [x, *node.inputs[1:]], kept)
        pool = with_shapes_of(node, [z])
    else:
        pool = layer_on(op, node, [x, *node.inputs[1:]])
    s = op.Div(R, op.Add(pool.outputs[0], epsilon))
    return [op.Mul(x, pulled(op, pool, s)), None]


def pool_norm(op: OpBuilder, node: Node, R: ir.Value, epsilon: float) -> Cotangents:
    """R_i = Σ_j x_i w_ij / (y_j + ε sign y_j) · R_j (zennit's `Norm`)."""
    s = op.Div(R, stabilised(op, node.outputs[0], epsilon))
    return [op.Mul(node.inputs[0], pulled(op, node, s)), None]


def resize(
    op: OpBuilder, node: Node, R: ir.Value, interpolated: Rule, epsilon: float
) -> Cotangents:
    """Copies of the nearest element move; what is interpolated is pooled."""
    nearest = node.attributes.get_string("mode", "nearest") == "nearest"
    if nearest:
        return as_cotangent(op, node, R)
    return interpolated(op, node, R, epsilon=epsilon)


# ----- sums -----


def split_by_magnitude(op: OpBuilder, node: Node, R: ir.Value, epsilon: float) -> Cotangents:
    """|a| / (|a| + |b| + ε) · R to each operand that varies; a constant takes nothing."""
    takers = varying(node)
    sizes = {i: op.Abs(node.inputs[i]) for i in takers if len(takers) > 1}
    s = op.Div(R, op.Add(total(op, list(sizes.values())), epsilon)) if sizes else R
    result: list[ir.Value | None] = [None] * len(node.inputs)
    for i in takers:
        result[i] = op.Mul(s, sizes[i]) if sizes else R
    return result


def split_by_value(op: OpBuilder, node: Node, R: ir.Value, epsilon: float) -> Cotangents:
    """a / (y + ε sign y) · R (zennit's `Norm` of a sum); a constant is a bias and keeps its own."""
    s = op.Div(R, stabilised(op, node.outputs[0], epsilon))
    result: list[ir.Value | None] = [None] * len(node.inputs)
    for i in varying(node):
        result[i] = op.Mul(node.inputs[i], pulled(op, node, s, i))
    return result


# ----- everything else -----


def passes(op: OpBuilder, node: Node, R: ir.Value, *_others: None) -> Cotangents:
    """R, unchanged."""
    return [R]


def as_cotangent(op: OpBuilder, node: Node, R: ir.Value, *others: None) -> Cotangents:
    """Each element goes back to where it came from: as its cotangent, so its relevance."""
    return VJPS[operator_name(node)](op, node, R, *others)


def extremum(op: OpBuilder, node: Node, R: ir.Value) -> Cotangents:
    """To the value that won; beside constants alone, Max and Min are an activation."""
    takers = varying(node)
    if len(takers) > 1:
        return as_cotangent(op, node, R)
    return [R if i in takers else None for i in range(len(node.inputs))]


def scattered(op: OpBuilder, node: Node, R: ir.Value) -> Cotangents:
    """What was put takes the relevance of its place."""
    if node.attributes.get_string("reduction", "none") != "none":
        raise NoRuleError(f"no relevance rule for {node.op_type} {node.name!r} with a reduction")
    return as_cotangent(op, node, R)
