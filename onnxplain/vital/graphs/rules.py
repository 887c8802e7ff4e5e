"""The rules of z⁺ for relevance to a neuron, with the choices that VITAL's code leaves.

It propagates by the code of Otsuki et al. ("Layer-wise relevance propagation with conservation
property for ResNet", arXiv 2407.09115), whose rules for shortcuts and whose filter are here too.
"""

from __future__ import annotations

import math
from functools import partial

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.errors import SourceError
from onnxplain.export.autodiff import Cotangents, Node, Rule
from onnxplain.export.methods.layer_rules import epsilon
from onnxplain.export.methods.lrp import LRP_ZPLUS
from onnxplain.export.methods.method import Method
from onnxplain.export.methods.relevance import (
    pool_plus,
    pulled,
    split_by_magnitude,
    with_shapes_of,
)
from onnxplain.export.operators import Kind, row_of
from onnxplain.export.tensors import rank, static
from onnxplain.export.values import varying
from onnxplain.vital.settings import Flow

_NEARLY_0 = 1e-30
"""Added to |a| + |b|, so that nothing is shared where both are 0."""

_FILTERED = (Kind.CONVOLUTION, Kind.MATRIX_PRODUCT, Kind.POOL, Kind.MAXIMUM)


def rules_of(flow: Flow) -> dict[str, Rule]:
    """Operator name → rule."""
    pool = pool_halved if flow.pool == "vital" else pool_plus
    table = {**LRP_ZPLUS, Kind.MAXIMUM: pool, Kind.SUM: _SHORTCUTS[flow.skip]}
    rules = Method("vital", parameters=(epsilon(1e-5),), relevance=table).rules()
    if flow.share == 1:
        return rules
    return {
        name: partial(greatest, share=flow.share, rule=rule)
        if row_of(name).kind in _FILTERED
        else rule
        for name, rule in rules.items()
    }


def pool_halved(
    op: OpBuilder, node: Node, R: ir.Value, *indices: None, epsilon: float
) -> Cotangents:
    """As the average over 2 × 2 with stride 2; where that is of another size, as `pool_plus`."""
    x, y = node.inputs[0], node.outputs[0]
    if rank(x) != 4 or static(y, 2) != [n // 2 for n in static(x, 2)]:
        return pool_plus(op, node, R, *indices, epsilon=epsilon)
    z = op.AveragePool(x, kernel_shape=[2, 2], strides=[2, 2])
    pool = with_shapes_of(node, [z])
    return [op.Mul(x, pulled(op, pool, op.Div(R, op.Add(z, epsilon)))), None]


# ----- sums -----


def halved(op: OpBuilder, node: Node, R: ir.Value) -> Cotangents:
    """As much to each operand that varies as to the others; a constant takes nothing."""
    return _evenly(op, node, R, varying(node))


def by_magnitude(op: OpBuilder, node: Node, R: ir.Value) -> Cotangents:
    """|a| / (|a| + |b|) · R to each operand that varies; a constant takes nothing."""
    return split_by_magnitude(op, node, R, _NEARLY_0)


def branch_by_magnitude(op: OpBuilder, node: Node, R: ir.Value) -> Cotangents:
    """Nothing to a shortcut that is the identity, else as `by_magnitude`."""
    return _branch(op, node, R) or by_magnitude(op, node, R)


def branch_halved(op: OpBuilder, node: Node, R: ir.Value) -> Cotangents:
    """Nothing to a shortcut that is the identity, else as `halved`."""
    return _branch(op, node, R) or halved(op, node, R)


def _branch(op: OpBuilder, node: Node, R: ir.Value) -> Cotangents:
    """R to what is computed from another operand, if there is such."""
    takers = varying(node)
    ends = [i for i in takers if any(_leads_to(node, j, i) for j in takers if j != i)]
    return _evenly(op, node, R, ends) if ends else None


def _leads_to(node: Node, j: int, i: int) -> bool:
    """Whether input i of a node is computed from input j."""
    waiting, seen = [node.inputs[i]], set()
    while waiting:
        x = waiting.pop()
        if x is node.inputs[j]:
            return True
        made = None if x is None or x in seen else x.producer()
        seen.add(x)
        waiting.extend(() if made is None else made.inputs)
    return False


def _evenly(op: OpBuilder, node: Node, R: ir.Value, takers: list[int]) -> Cotangents:
    share = op.Mul(R, 1.0 / len(takers)) if len(takers) > 1 else R
    return [share if i in takers else None for i in range(len(node.inputs))]


_SHORTCUTS: dict[str, Rule] = {
    "ratio": by_magnitude,
    "half": halved,
    "branch-ratio": branch_by_magnitude,
    "branch-half": branch_halved,
}
"""By the names of `onnxplain.vital.settings.SKIP_RULES`."""


# ----- the filter -----


def greatest(
    op: OpBuilder, node: Node, R: ir.Value, *indices: None, share: float, rule: Rule
) -> Cotangents:
    """By `rule`, but with 0 for all elements of an image's R other than that share, the greatest.

    Raises:
        SourceError: the share is less than one element.
    """
    sizes = static(node.outputs[0], 1)
    kept = int(share * math.prod(sizes))
    if not kept:
        raise SourceError(
            f"a share of {share:g} leaves none of the {math.prod(sizes)} elements at "
            f"{node.name!r}; give a greater one"
        )
    flat = op.Reshape(R, [-1, math.prod(sizes)])
    values, places = op.TopK(flat, [kept], axis=-1, _outputs=2)
    left = op.ScatterElements(op.Mul(flat, 0.0), places, values, axis=-1)
    left = op.Reshape(left, [-1, *sizes])
    left.shape, left.type = node.outputs[0].shape, node.outputs[0].type
    return rule(op, node, left, *indices)
