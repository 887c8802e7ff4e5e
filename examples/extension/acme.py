"""An operator and a method that onnxplain does not have, from outside: see docs/extending.md."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

from onnxplain.errors import SourceError
from onnxplain.export import Kind, Method, Parameter, check_vjp, register_method, register_vjp


@register_vjp("com.microsoft::CDist", kind=Kind.OTHER)
def squared_distances(op: Any, node: Any, g: Any) -> Any:
    """y_ij = Σ_k (a_ik − b_jk)²: 2 (a_ik Σ_j g_ij − Σ_j g_ij b_jk) for a; b is constant."""
    a, b = node.inputs
    metric = node.attributes.get_string("metric", "sqeuclidean")
    if metric == "euclidean":  # d√y = dy / 2√y, and 0 where the two are one point
        (y,) = node.outputs
        g = op.Mul(g, op.Div(y, op.Max(op.Mul(op.Mul(y, y), 2.0), 1e-30)))
    elif metric != "sqeuclidean":
        raise SourceError(f"CDist by {metric!r} has no rule")
    total = op.ReduceSum(g, [-1], keepdims=1)
    return op.Mul(op.Sub(op.Mul(a, total), op.MatMul(g, b)), 2.0)


def softplus_gate(op: Any, node: Any, g: Any, beta: float) -> Any:
    """g · σ(β z), the slope of softplus(β z) / β (Dombrowski et al. 2019, arXiv 1906.07983)."""
    return op.Mul(g, op.Sigmoid(op.Mul(node.inputs[0], beta)))


register_method(
    Method(
        "softplus",
        {"Relu": softplus_gate},
        parameters=(Parameter("beta", 10.0, "how sharp the corner of ReLU is"),),
    )
)


class CDist(OpRun):  # type: ignore[misc]  # onnx has no types
    """What the operator computes, for `check_vjp`: ONNX does not define it."""

    op_domain = "com.microsoft"

    def _run(self, a: Any, b: Any, metric: str | None = None) -> tuple[Any]:
        squared = ((a[:, None] - b[None]) ** 2).sum(-1)
        return (np.sqrt(squared) if metric == "euclidean" else squared,)


if __name__ == "__main__":
    random = np.random.default_rng(0)
    features, prototypes = random.normal(size=(4, 8)), random.normal(size=(3, 8))
    for metric in ("sqeuclidean", "euclidean"):
        given = {"metric": metric}
        check_vjp("com.microsoft::CDist", [features, prototypes], given, operators=[CDist])
