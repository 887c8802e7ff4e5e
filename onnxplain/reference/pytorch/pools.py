"""Max-pools whose backward pass is that of a softmax-weighted pool."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from onnxplain.reference.pytorch.replace import Pull, Rule, Temperatures, backward_of


def soft_max_pools(through_weights: bool) -> dict[Callable[..., Any], Rule]:
    """Every max-pool, as s = Σ x_i w_i with w = softmax(x / T) over each window.

    Args:
        through_weights: ∂s/∂x_i is w_i (1 + (x_i − s)/T); else, weights held constant, w_i.
    """

    def rule(axes: int) -> Rule:
        def backward(T: Temperatures, *args: Any, **kwargs: Any) -> Pull:
            window, _ = read_window(axes, *args, **kwargs)
            return _pull(window, T.max_pool, through_weights)

        return backward_of(backward)

    return {func: rule(axes) for func, axes in MAX_POOLS.items()}


def read_window(
    axes: int,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,  # always False: torch has another function for True
) -> tuple[list[list[int]], bool]:
    """The arguments of a torch max-pool after its input.

    Returns:
        Kernel, stride, padding and dilation, each one number per spatial axis; `ceil_mode`.
    """
    if stride is None or stride == []:  # torch's two ways to say "as the kernel"
        stride = kernel_size
    return [per_axis(v, axes) for v in (kernel_size, stride, padding, dilation)], ceil_mode


def _pull(window: Sequence[Sequence[int]], T: float, through_weights: bool) -> Pull:
    def pull(x: Tensor, g: Tensor) -> Tensor:
        with torch.enable_grad():
            source = x.detach().requires_grad_()
            x = windows(without_infinities(source), g.shape, *window)
        w = torch.softmax(x / T, dim=-1)
        share = w
        if through_weights:
            s = (x * w).sum(dim=-1, keepdim=True)
            share = w * (1 + (x - s) / T)
        # Each element adds up what it receives from its windows: the transpose of the gather.
        (gradient,) = torch.autograd.grad(x, source, g[..., None] * share)
        return gradient

    return pull


def without_infinities(x: Tensor) -> Tensor:
    """Padding by -∞ before a pool, which is the pool's own spelled otherwise, reads 0 likewise."""
    return x.masked_fill(x == -torch.inf, 0)


def windows(
    x: Tensor,
    shape: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """The elements of each window of a pool with d = len(kernel) spatial axes.

    Args:
        x: [..., *sizes], the last d axes spatial.
        shape: of the pool's output, [..., *outputs].

    Returns:
        [..., *outputs, elements of a window]; 0 where a window reads padding or, by ceil_mode,
        hangs over the end.
    """
    first = x.ndim - len(kernel)
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    pads: list[int] = []
    for axis, (span, step, before) in enumerate(zip(spans, stride, padding, strict=True), first):
        # What the last window needs beyond the end; negative where it leaves elements unread.
        after = (shape[axis] - 1) * step + span - before - x.shape[axis]
        pads = [before, after, *pads]  # functional.pad counts from the last axis
    x = functional.pad(x, pads)
    for axis, (span, step, apart) in enumerate(zip(spans, stride, dilation, strict=True), first):
        x = x.unfold(axis, span, step)[..., ::apart]
    return x.flatten(-len(kernel))


def per_axis(value: int | Sequence[int], axes: int) -> list[int]:
    """One number per spatial axis, from torch's "a number, one in a sequence, or one each"."""
    values = [value] if isinstance(value, int) else list(value)
    return values * axes if len(values) == 1 else values


MAX_POOLS: dict[Callable[..., Any], int] = {
    functional.max_pool1d: 1,
    functional.max_pool2d: 2,
    functional.max_pool3d: 3,
    torch.max_pool1d: 1,
    torch.max_pool2d: 2,
    torch.max_pool3d: 3,
}
"""torch function → spatial axes. Pools that return indices, adaptive pools and reductions keep
their gradient."""
