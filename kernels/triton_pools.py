"""The backward of the softmax-weighted pool as Triton kernels, in gather form.

Each element of the input adds up what it receives from the windows that hold it, in a fixed order:
no atomics, the same bits in every run. Arithmetic in float32, whatever the tensors hold.

Along each axis element i lies at i + before = a · stride + phase, in *cell* a; the windows that
hold it are p = a − q with q · stride + phase = tap · dilation. So all elements of a cell look at
the same windows, and a window's statistics serve a whole cell.

Tensors are contiguous, [planes, H, W] and [planes, OH, OW]; a pool along one axis is one with
H = OH = 1. Positions outside the input take part with the value 0.
"""

from __future__ import annotations

import triton
import triton.language as tl

BLOCK = 256
"""Elements of the input, or windows, per program."""


@triton.jit
def window_statistics(
    x, top, left, H, W, inv_T, active,
    KH: tl.constexpr, KW: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr,
):  # fmt: skip
    """(m + T log Z, s) of the windows of a plane `x` whose first elements are at (top, left).

    With m = max x_i, Z = Σ exp((x_i − m) / T), that first number c gives every weight at once,
    w_i = exp((x_i − c) / T); and s = Σ w_i x_i.
    """
    # A row of a usual window at a time, so that its loads are under way together.
    UNROLL: tl.constexpr = KW if KW <= 8 else 4
    m = tl.full(top.shape, float("-inf"), tl.float32)
    for ty in range(KH):
        for tx in tl.range(0, KW, loop_unroll_factor=UNROLL):
            m = tl.maximum(m, element(x, top + ty * DH, left + tx * DW, H, W, active))
    Z = tl.zeros(top.shape, tl.float32)
    weighted = tl.zeros(top.shape, tl.float32)
    for ty in range(KH):
        for tx in tl.range(0, KW, loop_unroll_factor=UNROLL):
            apart = element(x, top + ty * DH, left + tx * DW, H, W, active) - m
            e = tl.exp(apart * inv_T)
            Z += e
            weighted += e * apart
    return m + tl.log(Z) / inv_T, m + weighted / Z


@triton.jit
def element(x, row, column, H, W, active):
    """x[row, column], 0 outside."""
    inside = active & (row >= 0) & (row < H) & (column >= 0) & (column < W)
    return tl.load(x + row * W + column, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def pool_statistics_kernel(
    x, statistics, inv_T, planes, H, W, OH, OW,
    KH: tl.constexpr, KW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    DH: tl.constexpr, DW: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """`window_statistics` of every window: float32 [2, planes, OH, OW].

    Grid: (⌈planes · OH · OW / BLOCK⌉,).
    """
    windows = tl.full([], 1, tl.int64) * planes * OH * OW  # may pass 2³¹
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    active = at < windows
    plane = at // (OH * OW)
    py = (at // OW % OH).to(tl.int32)
    px = (at % OW).to(tl.int32)
    c, s = window_statistics(
        x + plane * H * W, py * SH - BH, px * SW - BW, H, W, inv_T, active, KH, KW, DH, DW
    )
    tl.store(statistics + at, c, mask=active)
    tl.store(statistics + windows + at, s, mask=active)


@triton.jit
def soft_max_pool_grad_kernel(
    x, g, statistics, out, inv_T, planes, H, W, OH, OW,
    KH: tl.constexpr, KW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    DH: tl.constexpr, DW: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr,
    STORED: tl.constexpr, HELD: tl.constexpr, PHASES: tl.constexpr, CELLS: tl.constexpr,
):  # fmt: skip
    """out_i = Σ_p g_p w_i (1 + (x_i − s_p) / T) over the windows p that hold element i.

    HELD takes the weights as constants: Σ_p g_p w_i. STORED reads the statistics that
    `pool_statistics_kernel` left; else they are computed here and `statistics` is not read.

    x: [planes, H, W]; g: [targets, planes, OH, OW]; out: [targets, planes, H, W]. PHASES is the
    next power of two of SH · SW, CELLS the cells per program. Grid:
    (⌈planes · cells / CELLS⌉, targets) with ⌊(H − 1 + BH) / SH⌋ − ⌊BH / SH⌋ + 1 cells down and as
    many across with W.
    """
    first_y: tl.constexpr = BH // SH
    first_x: tl.constexpr = BW // SW
    down = (H - 1 + BH) // SH - first_y + 1
    across = (W - 1 + BW) // SW - first_x + 1
    at = tl.program_id(0).to(tl.int64) * CELLS + tl.arange(0, CELLS)
    plane = at // (down * across)
    cell_y = (at // across % down).to(tl.int32) + first_y
    cell_x = (at % across).to(tl.int32) + first_x
    active = plane < planes

    phase = tl.arange(0, PHASES)
    phase_y = phase // SW
    phase_x = phase % SW
    row = cell_y[:, None] * SH + phase_y[None, :] - BH
    column = cell_x[:, None] * SW + phase_x[None, :] - BW
    mine = active[:, None] & (phase < SH * SW)[None, :]
    mine = mine & (row >= 0) & (row < H) & (column >= 0) & (column < W)
    pixel = plane[:, None] * H * W + row * W + column
    value = tl.load(x + pixel, mask=mine, other=0.0).to(tl.float32)

    target = tl.program_id(1).to(tl.int64)
    windows = tl.full([], 1, tl.int64) * planes * OH * OW  # may pass 2³¹
    total = tl.zeros([CELLS, PHASES], tl.float32)
    for qy in range((KH - 1) * DH // SH + 1):
        for qx in range((KW - 1) * DW // SW + 1):
            py = cell_y - qy
            px = cell_x - qx
            valid = active & (py >= 0) & (py < OH) & (px >= 0) & (px < OW)
            window = (plane * OH + py) * OW + px
            if STORED:
                c = tl.load(statistics + window, mask=valid, other=0.0)
                s = tl.load(statistics + windows + window, mask=valid, other=0.0)
            else:
                c, s = window_statistics(
                    x + plane * H * W, py * SH - BH, px * SW - BW, H, W, inv_T, valid,
                    KH, KW, DH, DW,
                )  # fmt: skip
            cotangent = tl.load(g + target * windows + window, mask=valid, other=0.0)
            reach_y = qy * SH + phase_y
            reach_x = qx * SW + phase_x
            held = (reach_y % DH == 0) & (reach_y <= (KH - 1) * DH)
            held = held & (reach_x % DW == 0) & (reach_x <= (KW - 1) * DW)
            w = tl.exp((value - c[:, None]) * inv_T)
            share = cotangent.to(tl.float32)[:, None] * w
            if not HELD:
                share *= 1.0 + (value - s[:, None]) * inv_T
            total += tl.where(held[None, :] & valid[:, None], share, 0.0)
    tl.store(out + target * planes * H * W + pixel, total, mask=mine)
