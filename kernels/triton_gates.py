"""The gates as Triton kernels: every element read once and written once.

Arithmetic in float32, whatever the tensors hold. Tensors are dense, all with the same strides, so
that memory order is as good as any.
"""

from __future__ import annotations

import triton
import triton.language as tl

BLOCK = 1024


@triton.jit
def openness(z, inv_T, NORMAL: tl.constexpr):
    """σ(z / T), or Φ(z / T) for NORMAL."""
    u = z * inv_T
    if NORMAL:
        return 0.5 + 0.5 * tl.erf(u * 0.7071067811865476)
    return tl.sigmoid(u)


@triton.jit
def soft_gate_kernel(z, g, out, inv_T, n, targets, NORMAL: tl.constexpr, BLOCK: tl.constexpr):
    """out[k, i] = g[k, i] · gate(z[i]): z and its gate serve all `targets` cotangents.

    z: [n]; g and out: [targets, n]. Grid: (⌈n / BLOCK⌉,).
    """
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    gate = openness(tl.load(z + i, mask=inside).to(tl.float32), inv_T, NORMAL)
    for _ in range(targets):
        cotangent = tl.load(g + i, mask=inside).to(tl.float32)
        tl.store(out + i, cotangent * gate, mask=inside)
        g += n
        out += n


@triton.jit
def relu_soft_gate_kernel(z, y, gate, inv_T, n, NORMAL: tl.constexpr, BLOCK: tl.constexpr):
    """y = max(z, 0) and gate = gate(z), from one read of z. Grid: (⌈n / BLOCK⌉,)."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    pre = tl.load(z + i, mask=inside).to(tl.float32)
    # Not tl.maximum(pre, 0): a NaN passes a ReLU.
    tl.store(y + i, tl.where(pre < 0, 0.0, pre), mask=inside)
    tl.store(gate + i, openness(pre, inv_T, NORMAL), mask=inside)
