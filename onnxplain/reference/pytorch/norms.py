"""The semantic pullback of normalisations: their statistics held constant."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from onnxplain.reference.pytorch.replace import (
    Backward,
    Pull,
    ReplacedBackward,
    Rule,
    Temperatures,
    backward_of,
)


def layer_norm(
    T: Temperatures,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Pull:
    axes = tuple(range(-len(normalized_shape), 0))
    return lambda x, g: g * _or_one(weight) / _sigma(x, axes, eps)


def rms_norm(
    T: Temperatures,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Pull:
    axes = tuple(range(-len(normalized_shape), 0))

    def pull(x: Tensor, g: Tensor) -> Tensor:
        mean_square = x.square().mean(axes, keepdim=True)
        epsilon = torch.finfo(x.dtype).eps if eps is None else eps
        return g * _or_one(weight) / (mean_square + epsilon).sqrt()

    return pull


def group_norm(
    T: Temperatures,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Pull:
    def pull(x: Tensor, g: Tensor) -> Tensor:
        sigma = _sigma(x.reshape(len(x), num_groups, -1), (-1,), eps)
        per_channel = sigma.repeat_interleave(x.shape[1] // num_groups, dim=1)
        return _by_channel(weight, x) * g / per_channel.reshape(*x.shape[:2], *[1] * (x.ndim - 2))

    return pull


def instance_norm(
    T: Temperatures,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Pull | None:
    if not use_input_stats:
        return None  # linear
    return lambda x, g: _by_channel(weight, x) * g / _sigma(x, tuple(range(2, x.ndim)), eps)


def local_response_norm(
    T: Temperatures, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Pull:
    """x / d^β, d = k + α/n · Σ x² over n channels, more of them before than after."""

    def pull(x: Tensor, g: Tensor) -> Tensor:
        squares = x.square().movedim(1, -1)
        padded = functional.pad(squares, (size // 2, (size - 1) // 2))
        mean_square = padded.unfold(-1, size, 1).mean(-1).movedim(-1, 1)
        return g / (k + alpha * mean_square) ** beta

    return pull


def normalize(
    T: Temperatures, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: None = None
) -> Pull:
    return lambda x, g: g / x.norm(p, dim, keepdim=True).clamp_min(eps)


def batch_norm(
    mode: ReplacedBackward, func: Callable[..., Tensor], *args: Any, **kwargs: Any
) -> Tensor:
    """torch's own, whatever the method; but its backward gets a cotangent that it reads right.

    In evaluation mode torch (2.15, on the CPU) misreads that of a single image, channels last,
    whose batch stride is not the image's size: what comes out of `x.flatten(2).transpose(1, 2)`.
    """
    y = func(*args, **kwargs)
    if y.requires_grad:
        y.register_hook(lambda g: g.contiguous() if g.stride(0) < g[0].numel() else g)  # type: ignore[no-untyped-call]
    return y


def statistic(mode: ReplacedBackward, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Within a module whose class is called a norm, what a reduction returns is held constant."""
    if not mode.running or not _NORM.search(type(mode.running[-1]).__name__):
        return NotImplemented
    found = func(*args, **kwargs)
    return found.detach() if isinstance(found, Tensor) else tuple(part.detach() for part in found)


_NORM = re.compile(r"(Norm|GRN)(Act)?((Exp)?\dd)?(Fp32)?$")

_BACKWARDS: dict[Callable[..., Any], Backward] = {
    **dict.fromkeys([functional.layer_norm, torch.layer_norm], layer_norm),
    **dict.fromkeys([functional.rms_norm, torch.rms_norm], rms_norm),
    **dict.fromkeys([functional.group_norm, torch.group_norm], group_norm),
    **dict.fromkeys([functional.instance_norm, torch.instance_norm], instance_norm),
    functional.local_response_norm: local_response_norm,
    functional.normalize: normalize,
}
_STATISTICS = [
    getattr(owner, name)
    for owner in (torch, Tensor)
    for name in ("mean", "var", "std", "norm", "var_mean", "std_mean")
    if hasattr(owner, name)
]
FUNCTIONS: dict[Callable[..., Any], Rule] = {
    **{func: backward_of(backward) for func, backward in _BACKWARDS.items()},
    **dict.fromkeys([*_STATISTICS, torch.linalg.vector_norm], statistic),
}


def _sigma(x: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    return (x.var(axes, unbiased=False, keepdim=True) + eps).sqrt()


def _or_one(weight: Tensor | None) -> Tensor | float:
    return 1.0 if weight is None else weight


def _by_channel(weight: Tensor | None, x: Tensor) -> Tensor | float:
    return 1.0 if weight is None else weight.reshape(-1, *[1] * (x.ndim - 2))
