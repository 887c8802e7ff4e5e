"""Maps of what a transformer's tokens attended to, put together over all its layers.

A is a layer's attention [N, heads, T, T], g the ordinary gradient of the target's logit with
respect to it. The matrices that the papers multiply from the first layer to the last are multiplied
here from the last to the first, onto r, the row [N, 1, T] of what is read: the same numbers for a
T-th of the work.
"""

from __future__ import annotations

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.methods.method import Method, register_method
from onnxplain.export.tensors import rank

NEEDS = "attention from each token to each, as in ViT, DeiT and DINO"


def rollout(op: OpBuilder, r: ir.Value, A: ir.Value, g: ir.Value) -> ir.Value:
    """r (Ā + I), with rows that add up to 1, Ā the mean over heads (Abnar & Zuidema 2020)."""
    mean = _over_heads(op, A)
    total = op.Add(op.ReduceSum(mean, [-1], keepdims=0), 1.0)
    share = op.Div(r, op.Unsqueeze(total, [-2]))
    return op.Add(op.MatMul(share, mean), share)


def attribution(op: OpBuilder, r: ir.Value, A: ir.Value, g: ir.Value) -> ir.Value:
    """r + r Ā, Ā the mean over heads of ReLU(g ⊙ A) (Chefer et al. 2021, Eqs. 5 and 6)."""
    return op.Add(r, op.MatMul(r, _over_heads(op, op.Relu(op.Mul(g, A)))))


def _over_heads(op: OpBuilder, A: ir.Value) -> ir.Value:
    return A if rank(A) < 4 else op.ReduceMean(A, [-3], keepdims=0)


register_method(
    Method(
        "attention-rollout",
        attention_map=rollout,
        help="where a transformer looked, whatever the class",
        needs=NEEDS,
        source="Abnar & Zuidema 2020, arXiv 2005.00928",
        forwards=1,
    )
)
register_method(
    Method(
        "transformer-attribution",
        attention_map=attribution,
        help="where a transformer looked for the class",
        needs=NEEDS,
        source="Chefer et al. 2021, arXiv 2103.15679",
    )
)
