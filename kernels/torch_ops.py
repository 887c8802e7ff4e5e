"""The kernels on PyTorch's CUDA tensors, and the layers whose backward pass they are."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from onnxplain.errors import BackendError, InputError
from onnxplain.kernels.compile import NO_TRITON
from onnxplain.kernels.pool import Pool

try:
    import triton

    from onnxplain.kernels import triton_gates, triton_pools
except ModuleNotFoundError as error:
    raise BackendError(NO_TRITON) from error

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def soft_gate(z: Tensor, g: Tensor, T: float, normal: bool = False) -> Tensor:
    """g · σ(z / T), or g · Φ(z / T) where `normal`.

    Args:
        z: float32, float16 or bfloat16, on a CUDA device.
        g: like z, or [K, *shape of z]: K cotangents share one z.

    Returns:
        A tensor of the shape and dtype of g.

    Raises:
        InputError: tensors of another kind or device, or a T that is not positive.
    """
    _check(T, z, g)
    if g.shape not in (z.shape, torch.Size([len(g), *z.shape]) if g.ndim else None):
        raise InputError(f"g must be {list(z.shape)} or [K, *{list(z.shape)}], not {list(g.shape)}")
    z, g = _same_layout(z, g)
    out = torch.empty_like(g)
    n = z.numel()
    if g.numel():
        with _device_of(z):
            triton_gates.soft_gate_kernel[_blocks(n, triton_gates.BLOCK)](
                z, g, out, 1 / T, n, g.numel() // n,
                NORMAL=normal, BLOCK=triton_gates.BLOCK, enable_fp_fusion=True,
            )  # fmt: skip
    return out


def relu_soft_gate(z: Tensor, T: float, normal: bool = False) -> tuple[Tensor, Tensor]:
    """max(z, 0) and σ(z / T), or Φ(z / T) where `normal`, from one read of z.

    Raises:
        InputError: as `soft_gate`.
    """
    _check(T, z)
    z = _dense(z)
    y, gate = torch.empty_like(z), torch.empty_like(z)
    if z.numel():
        with _device_of(z):
            triton_gates.relu_soft_gate_kernel[_blocks(z.numel(), triton_gates.BLOCK)](
                z, y, gate, 1 / T, z.numel(),
                NORMAL=normal, BLOCK=triton_gates.BLOCK, enable_fp_fusion=True,
            )  # fmt: skip
    return y, gate


def soft_max_pool_grad(x: Tensor, g: Tensor, pool: Pool, T: float, held: bool = False) -> Tensor:
    """The gradient of the softmax-weighted pool: Σ g w_i (1 + (x_i − s) / T), windows of x_i.

    w = softmax(x / T) over a window and s = Σ w_i x_i; padding, and what a `ceil_mode` window hangs
    over, take part with the value 0.

    Args:
        x: the pool's input [..., H, W]: float32, float16 or bfloat16, on a CUDA device.
        g: [..., OH, OW], or [K, ..., OH, OW]: K cotangents of its output share one x.
        held: take the weights as constants: Σ g w_i.

    Returns:
        A tensor of the dtype of x, [..., H, W] or [K, ..., H, W].

    Raises:
        InputError: as `soft_gate`; or the shapes do not belong together.
    """
    _check(T, x, g)
    if min(x.ndim, g.ndim) < 2 or g.shape[:-2] not in (
        x.shape[:-2],
        torch.Size([len(g), *x.shape[:-2]]),
    ):
        raise InputError(f"x {list(x.shape)} and g {list(g.shape)} must agree up to their last two")
    x, g = x.contiguous(), g.contiguous()
    (H, W), (OH, OW) = x.shape[-2:], g.shape[-2:]
    out = x.new_empty([*g.shape[:-2], H, W])
    if not g.numel():
        return out.zero_()
    planes = x.numel() // (H * W)
    targets = out.numel() // x.numel()
    sizes = (H, W, OH, OW)
    phases = triton.next_power_of_2(math.prod(pool.strides))
    cells = max(triton_pools.BLOCK // phases, 1)
    (grid,) = _blocks(planes * math.prod(pool.cells((H, W))), cells)
    statistics = x
    with _device_of(x):
        if pool.stores_statistics:
            windows = planes * OH * OW
            statistics = x.new_empty([2, windows], dtype=torch.float32)
            triton_pools.pool_statistics_kernel[_blocks(windows, triton_pools.BLOCK)](
                x, statistics, 1 / T, planes, *sizes,
                **pool.constants(), BLOCK=triton_pools.BLOCK, enable_fp_fusion=True,
            )  # fmt: skip
        triton_pools.soft_max_pool_grad_kernel[(grid, targets)](
            x, g, statistics, out, 1 / T, planes, *sizes,
            **pool.constants(), STORED=pool.stores_statistics, HELD=held,
            PHASES=phases, CELLS=cells, enable_fp_fusion=True,
        )  # fmt: skip
    return out


class SoftReLU(torch.autograd.Function):
    """Forward min(max(z, 0), top); backward g · σ(z / T): `SoftReLU.apply(z, top, T)`."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, top: float, T: float) -> Tensor:
        ctx.save_for_backward(z)
        ctx.T = T
        return functional.relu(z) if top == math.inf else z.clamp(0, top)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        (z,) = ctx.saved_tensors
        return soft_gate(z, g, ctx.T), None, None


class SoftMaxPool(torch.autograd.Function):
    """Forward a max-pool; backward the softmax-weighted one's gradient, through its weights.

    `SoftMaxPool.apply(x, kernel, stride, padding, dilation, ceil_mode, T)` with one number per axis
    in each list, for one axis or two: x is [N, C, W] or [N, C, H, W].
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        kernel: list[int],
        stride: list[int],
        padding: list[int],
        dilation: list[int],
        ceil_mode: bool,
        T: float,
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.pool, ctx.T = Pool.along(kernel, stride, dilation, padding), T
        max_pool = functional.max_pool2d if len(kernel) == 2 else functional.max_pool1d
        return max_pool(x, kernel, stride, padding, dilation, ceil_mode)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        if x.ndim == 4:
            return soft_max_pool_grad(x, g, ctx.pool, ctx.T), *[None] * 6
        rows = soft_max_pool_grad(x[..., None, :], g[..., None, :], ctx.pool, ctx.T)
        return rows.reshape(x.shape), *[None] * 6


def _check(T: float, first: Tensor, *others: Tensor) -> None:
    if not (math.isfinite(T) and T > 0):
        raise InputError(f"the temperature must be a positive number, not {T}")
    if not (first.is_cuda or triton.knobs.runtime.interpret):
        raise InputError(
            f"the kernels run on CUDA tensors, not on {first.device}; there, "
            "onnxplain.reference computes the same"
        )
    if first.dtype not in _DTYPES:
        raise InputError(f"the kernels take float32, float16 and bfloat16, not {first.dtype}")
    for other in others:
        if (other.dtype, other.device) != (first.dtype, first.device):
            raise InputError(
                f"tensors of one dtype on one device are needed, not {first.dtype} on "
                f"{first.device} and {other.dtype} on {other.device}"
            )


def _same_layout(z: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Both dense, one after the other in the same order: as they are where they are so already."""
    if z.stride() == g.stride():
        z = _dense(z)
        return z, g if g.stride() == z.stride() else g.contiguous()
    return z.contiguous(), g.contiguous()


def _dense(z: Tensor) -> Tensor:
    """Without gaps between its elements, in whatever order of axes."""
    channels_last = z.ndim == 4 and z.is_contiguous(memory_format=torch.channels_last)
    return z if channels_last else z.contiguous()


def _blocks(elements: int, block: int) -> tuple[int]:
    return (triton.cdiv(elements, block),)


def _device_of(x: Tensor) -> Any:
    """A context in which Triton launches on the GPU of x, which need not be the current one."""
    return torch.cuda.device_of(x)  # type: ignore[no-untyped-call]
