"""Class activation maps by principal component: what a layer's activations vary by most, and where.

X holds a layer's activations, or those times their gradient, a row for each place. Its first
principal component v is found by power iteration; the map is what the centred rows say of it.
"""

from __future__ import annotations

import math

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.tensors import dims, is_known, rank, size_of

SQUARINGS = 12
"""M^(2^12) is a power iteration of 4096 steps: another component that is 0.998 times as large is
gone from float32."""

TINY = 1e-20
"""Where nothing varies, the map is 0."""


def eigen_cam(op: OpBuilder, A: ir.Value, g: ir.Value, axes: tuple[int, int, int]) -> ir.Value:
    """X v of X = A, of no class (Muhammad & Yeasin 2020, arXiv 2008.00299)."""
    low = projection(op, A, axes)
    if rank(g) == rank(A):
        return low
    return op.Expand(low, op.Concat(op.Shape(g, start=0, end=1), op.Shape(low), axis=0))


def eigen_grad_cam(op: OpBuilder, A: ir.Value, g: ir.Value, axes: tuple[int, int, int]) -> ir.Value:
    """X v of X = g A (pytorch-grad-cam's EigenGradCAM)."""
    return projection(op, op.Mul(g, A), axes)


def projection(op: OpBuilder, X: ir.Value, axes: tuple[int, int, int]) -> ir.Value:
    """The centred rows' part along the first principal component, [..., h, w], with the sign by
    which its extreme is positive (Chung & Ying 2025, Seg-Eigen-CAM, Eq. 13).

    Args:
        X: [..., h, w, C], or [..., C, h, w].
        axes: those of h, w and C, from the end.
    """
    sides, channels = [dims(X)[axis] for axis in axes[:2]], size_of(X, axes[2])
    before = [0] * (rank(X) - 3)
    if axes[2] == -1:
        rows = op.Reshape(X, [*before, -1, channels])
        columns = _turned(op, rows)
    else:
        columns = op.Reshape(X, [*before, channels, -1])
        rows = _turned(op, columns)
    mean = op.ReduceMean(rows, [-2], keepdims=1)
    rows, columns = op.Sub(rows, mean), op.Sub(columns, _turned(op, mean))
    known = [n for n in sides if is_known(n)]
    if len(known) == 2 and math.prod(known) <= channels:  # X v = |Xᵀ u| u, u being that of X Xᵀ
        u = _first(op, op.MatMul(rows, columns))
        along = op.Mul(op.ReduceL2(op.MatMul(columns, u), [-2], keepdims=1), u)
    else:
        along = op.MatMul(rows, _first(op, op.MatMul(columns, rows)))
    ends = [reduce(along, [-2], keepdims=1) for reduce in (op.ReduceMax, op.ReduceMin)]
    signed = op.Where(op.Less(op.Add(*ends), 0.0), op.Neg(along), along)
    if len(known) == 2:
        return op.Reshape(signed, [*before, *known])
    own = op.Shape(X, start=axes[0], end=axes[1] + 1 or None)
    low = op.Reshape(signed, op.Concat(op.Shape(X, end=-3), own, axis=0))
    low.shape = ir.Shape([*dims(X)[:-3], *sides])
    return low


def _turned(op: OpBuilder, M: ir.Value) -> ir.Value:
    before = rank(M) - 2
    return op.Transpose(M, perm=[*range(before), before + 1, before])


def _first(op: OpBuilder, M: ir.Value) -> ir.Value:
    """The eigenvector of length 1 to the greatest eigenvalue of M, [..., n, n] and nowhere
    negative: the longest column of M^(2^k), which is close to λ^(2^k) u uᵀ."""
    for _ in range(SQUARINGS):
        greatest = op.ReduceMax(M, [-2, -1], keepdims=1)  # it is on the diagonal
        M = op.Div(M, op.Max(greatest, TINY))
        M = op.MatMul(M, M)
    lengths = op.ReduceL2(M, [-2], keepdims=1)
    longest = op.ReduceMax(lengths, [-1], keepdims=1)
    _, index = op.TopK(lengths, [1], axis=-1, _outputs=2)
    every = op.Concat(op.Shape(M, start=0, end=-1), [1], axis=0)
    column = op.GatherElements(M, op.Expand(index, every), axis=-1)
    return op.Div(column, op.Max(longest, TINY))
