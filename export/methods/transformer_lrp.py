"""AttnLRP (Achtibat et al. 2024, arXiv 2402.05602) and CP-LRP (Ali et al. 2022, arXiv 2202.07304).

Layer-wise relevance propagation without a stabiliser is a gradient times what it is of: with
R = x · g for every value x of the network, each rule of relevances is one of cotangents, and the
sweep carries g. That is how the authors' own package `lxt.efficient` computes it.

    operator                    g of its input                      rule of the paper
    linear, bias or none        its gradient                        ε, with ε = 0
    f(x), elementwise           g · f(x) / x, g · f(0) where x = 0  identity, Eq. 9
    a · b, both of the image    half of its gradient to each        uniform, Eq. 7
    (x − μ) / σ · γ             σ held constant, μ not              identity
    softmax of attention        its gradient                        Taylor's, Eq. 13
    maxima, and all else        its gradient                        Taylor's

`cp-lrp` holds attention's weights and gates constant, and gives all to what they weight.

Σ R over the image is the logit, less what biases keep.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.autodiff import Cotangents, Node, Rule, cotangent_of, operator_name
from onnxplain.export.methods.method import Method, register_method
from onnxplain.export.methods.relevance import receivers
from onnxplain.export.methods.semantic import (
    global_response_normalization,
    held_constant,
    instance_normalization,
    l2_normalization,
    layer_normalization,
    lp_normalization,
    lrn,
)
from onnxplain.export.operators import VJPS, Kind, Linear, Rules, row_of
from onnxplain.export.tensors import axis_from_end, rank
from onnxplain.export.values import varying

# ----- of one operand -----


def identity(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """g · f(x) / x; of what is linear from 0 on either side that is its gradient."""
    row = row_of(operator_name(node))
    if row.linear is Linear.FIRST or tuple(row.homogeneous) == (0,):
        return VJPS[operator_name(node)](op, node, g)
    return [_all_of_it(op, node, g, 0), *[None] * (len(node.inputs) - 1)]


def _all_of_it(op: OpBuilder, node: Node, g: ir.Value, index: int) -> ir.Value:
    x, y = node.inputs[index], node.outputs[0]
    return op.Mul(g, op.Div(y, op.Where(op.Equal(x, 0.0), 1.0, x)))


def centred(rule: Rule, axes_of: Callable[[Node], Sequence[int]]) -> Rule:
    """A rule that holds mean and deviation constant, with the mean not held."""

    def both(op: OpBuilder, node: Node, g: ir.Value, *statistics: None) -> Cotangents:
        given = rule(op, node, g, *statistics)
        assert isinstance(given, Sequence)
        first, *parameters = given
        assert isinstance(first, ir.Value)
        mean = op.ReduceMean(first, list(axes_of(node)), keepdims=1)
        return [op.Sub(first, mean), *parameters]

    return both


def _normalised(node: Node) -> Sequence[int]:
    return range(axis_from_end(node, -1, node.inputs[0]), 0)


def _spatial(node: Node) -> Sequence[int]:
    return range(2 - rank(node.inputs[0]), 0)


# ----- of two -----


def divided(
    op: OpBuilder, node: Node, g: ir.Value, takers: Callable[[Node], list[int]]
) -> Cotangents:
    """The gradient, in equal parts to the factors that take relevance; whole to what is added."""
    factors = range(len(node.inputs) if node.op_type == "Einsum" else 2)
    taken = [i for i in takers(node) if i in factors]
    rule, parts = VJPS[operator_name(node)], max(len(taken), 1)
    part = rule(op, node, op.Mul(g, 1.0 / parts) if parts > 1 else g)
    whole = rule(op, node, g) if parts > 1 and len(node.inputs) > len(factors) else part

    def of(given: Cotangents, index: int) -> ir.Value:
        found = cotangent_of(op, node, given, index)
        assert found is not None
        return found

    return [
        partial(of, part if i in factors else whole, i) if i in taken or i not in factors else None
        for i in range(len(node.inputs))
    ]


def quotient(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """All to the first operand of the image: a divisor or an exponent beside it is held
    constant."""
    first = varying(node)[0]
    if node.op_type == "Div" and first == 0:
        return [op.Div(g, node.inputs[1]), None]
    return [_all_of_it(op, node, g, i) if i == first else None for i in range(2)]


_SHARED: Rules = {
    **dict.fromkeys([Kind.RECTIFIER, Kind.ACTIVATION], identity),
    "LayerNormalization": centred(layer_normalization, _normalised),
    "onnxplain::RMSNormalization": layer_normalization,
    "InstanceNormalization": centred(instance_normalization, _spatial),
    "LpNormalization": lp_normalization,
    "onnxplain::L2Normalization": l2_normalization,
    "LRN": lrn,
    "onnxplain::GlobalResponseNormalization": global_response_normalization,
    "Div": quotient,
    "Pow": quotient,
}

ATTN_LRP: Rules = {
    **_SHARED,
    "onnxplain::SigmoidGate": identity,
    "onnxplain::HardSigmoidGate": identity,
    **dict.fromkeys(
        [Kind.MATRIX_PRODUCT, Kind.CONVOLUTION, "Mul"], partial(divided, takers=varying)
    ),
}

CP_LRP: Rules = {
    **_SHARED,
    Kind.WEIGHTS: held_constant,
    **dict.fromkeys(
        [Kind.MATRIX_PRODUCT, Kind.CONVOLUTION, "Mul"], partial(divided, takers=receivers)
    ),
}

register_method(
    Method(
        "attn-lrp",
        ATTN_LRP,
        times_input=True,
        help="what speaks for the class and against it in a transformer, attention's choices too",
        source="Achtibat et al. 2024, arXiv 2402.05602",
    )
)
register_method(
    Method(
        "cp-lrp",
        CP_LRP,
        times_input=True,
        help="what speaks for the class and against it in a transformer, attention held as it is",
        source="Ali et al. 2022, arXiv 2202.07304",
    )
)
