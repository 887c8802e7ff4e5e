"""Maps of what a transformer's tokens attended to, put together over all its layers.

A is a layer's attention [N, heads, T, T], g the ordinary gradient of the target's logit with
respect to it. The matrices that two of the papers multiply from the first layer to the last are
multiplied here from the last to the first, onto r, the row [N, 1, T] of what is read: the same
numbers for a T-th of the work. The third adds up what each layer has by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.methods.method import AttentionMap, Method, register_method
from onnxplain.export.tensors import rank

NEEDS = "attention from each token to each, as in ViT, DeiT and DINO"


def rollout(op: OpBuilder, r: ir.Value, A: ir.Value, g: ir.Value) -> ir.Value:
    """r (Ā + I), with rows that add up to 1, Ā the mean over heads (Abnar & Zuidema 2020)."""
    mean = _over_heads(op, A, A)
    total = op.Add(op.ReduceSum(mean, [-1], keepdims=0), 1.0)
    share = op.Div(r, op.Unsqueeze(total, [-2]))
    return op.Add(op.MatMul(share, mean), share)


def attribution(op: OpBuilder, r: ir.Value, A: ir.Value, g: ir.Value) -> ir.Value:
    """r + r Ā, Ā the mean over heads of ReLU(g ⊙ A) (Chefer et al. 2021, Eqs. 5 and 6)."""
    return op.Add(r, op.MatMul(r, _over_heads(op, op.Relu(op.Mul(g, A)), A)))


def layer_by_layer(
    op: OpBuilder, r: ir.Value, As: Sequence[ir.Value], gs: Sequence[ir.Value]
) -> ir.Value:
    """The mean over layers, heads and the tokens that look of ReLU(g), each g of the score that the
    head gives the layer's own tokens (Bousselham et al. 2024, LeGrad)."""
    pairs = zip(gs, As, strict=True)
    rows = [op.ReduceMean(_over_heads(op, op.Relu(g), A), [-2], keepdims=1) for g, A in pairs]
    return op.Div(op.Sum(*rows), float(len(rows)))


def _onto(step: Callable[[OpBuilder, ir.Value, ir.Value, ir.Value], ir.Value]) -> AttentionMap:
    """The map of a formula `(op, r, A, g)` → r that is of one layer."""

    def from_the_last(
        op: OpBuilder, r: ir.Value, As: Sequence[ir.Value], gs: Sequence[ir.Value]
    ) -> ir.Value:
        for A, g in reversed([*zip(As, gs, strict=True)]):
            r = step(op, r, A, g)
        return r

    return from_the_last


def _over_heads(op: OpBuilder, x: ir.Value, A: ir.Value) -> ir.Value:
    """The mean over heads of x, of A's shape or with axes in front; A may have one without axis."""
    return x if rank(A) < 4 else op.ReduceMean(x, [-3], keepdims=0)


register_method(
    Method(
        "attention-rollout",
        attention_map=_onto(rollout),
        help="where a transformer looked, whatever the class",
        needs=NEEDS,
        source="Abnar & Zuidema 2020, arXiv 2005.00928",
        forwards=1,
        aliases=("rollout",),
    )
)
register_method(
    Method(
        "transformer-attribution",
        attention_map=_onto(attribution),
        help="where a transformer looked for the class",
        needs=NEEDS,
        source="Chefer et al. 2021, arXiv 2103.15679",
    )
)
register_method(
    Method(
        "legrad",
        attention_map=layer_by_layer,
        by_layer=True,
        help="where more attention, in each of a transformer's layers, would speak for the class",
        needs=NEEDS + ", or a head that pools tokens by attention, as SigLIP's",
        source="Bousselham et al. 2024, arXiv 2404.03214",
        forwards=1.7,
    )
)
