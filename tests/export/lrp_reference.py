"""`lrp-zplus` in PyTorch, on the network as torchvision wrote it: nothing shared with the exporter.

Convolutions and pools are unfolded into windows, and a window's contributions are clamped one by
one: (x w)⁺ = x⁺ w⁺ + x⁻ w⁻. A batch norm right behind a convolution belongs to it; any other passes
relevance on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

EPSILON = 1e-5
CHUNK = 16
"""Output channels at once: a window's contributions are a large tensor."""


class Relevance(torch.autograd.Function):
    """Forward what `y` is, backward what `rule(R)` says of each of the inputs."""

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, rule: Callable[[Tensor], tuple[Tensor, ...]], *xs: Tensor
    ) -> Tensor:
        ctx.rule = rule
        return y.clone()

    @staticmethod
    def backward(ctx: Any, R: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *ctx.rule(R)


def convolution(
    x: Tensor, w: Tensor, stride: Any, padding: Any, dilation: Any, groups: int
) -> Callable[[Tensor], tuple[Tensor]]:
    window = {"kernel_size": w.shape[2:], "stride": stride, "padding": padding}
    window["dilation"] = dilation

    def rule(R: Tensor) -> tuple[Tensor]:
        n = len(x)
        columns = functional.unfold(x, **window).view(n, groups, 1, -1, R[0, 0].numel())
        kernels = w.reshape(groups, w.shape[0] // groups, -1, 1)
        above = R.reshape(n, groups, w.shape[0] // groups, 1, -1)
        back = torch.zeros_like(columns[:, :, 0])
        for some, theirs in zip(kernels.split(CHUNK, 1), above.split(CHUNK, 2), strict=True):
            contributions = (columns * some).clamp(min=0)
            share = theirs / (contributions.sum(3, keepdim=True) + EPSILON)
            back += (contributions * share).sum(2)
        return (functional.fold(back.flatten(1, 2), x.shape[2:], **window),)

    return rule


def matrix(x: Tensor, w: Tensor) -> Callable[[Tensor], tuple[Tensor]]:
    def rule(R: Tensor) -> tuple[Tensor]:
        contributions = (x[:, None] * w).clamp(min=0)
        z = contributions.sum(2, keepdim=True) + EPSILON
        return ((contributions / z * R[..., None]).sum(1),)

    return rule


def pool(x: Tensor, **window: Any) -> Callable[[Tensor], tuple[Tensor]]:
    """Shares within each window; ε belongs to the window's average over its real pixels."""

    def rule(R: Tensor) -> tuple[Tensor]:
        planes = x.reshape(-1, 1, *x.shape[2:])
        columns = functional.unfold(planes.clamp(min=0), **window)
        count = functional.unfold(torch.ones_like(planes), **window).sum(1, keepdim=True)
        share = R.reshape(len(planes), 1, -1) / (columns.sum(1, keepdim=True) + EPSILON * count)
        return (functional.fold(columns * share, x.shape[2:], **window).reshape(x.shape),)

    return rule


def residual(a: Tensor, b: Tensor) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    total = a.abs() + b.abs() + EPSILON
    return lambda R: (R * a.abs() / total, R * b.abs() / total)


def _activation(f: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Not in place, and relevance passes."""

    def replacement(x: Tensor, *args: Any, inplace: bool = False, **kwargs: Any) -> Tensor:
        return Relevance.apply(f(x.detach(), *args, **kwargs), lambda R: (R,), x)

    return replacement


def _conv2d(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    given, rest = x.detach().clone(), (stride, padding, dilation, groups)
    y = functional.conv2d(given, w, b, *rest)
    out: Tensor = Relevance.apply(y, convolution(given, w, *rest), x)
    out.convolved = (x, given, w, rest)  # type: ignore[attr-defined]
    return out


def _batch_norm(
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor,
    bias: Tensor,
    training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    assert not training
    y = functional.batch_norm(x.detach(), mean, var, weight, bias, False, momentum, eps)
    if not hasattr(x, "convolved"):
        return Relevance.apply(y, lambda R: (R,), x)
    source, given, w, window = x.convolved
    folded = w * (weight / (var + eps).sqrt())[:, None, None, None]
    return Relevance.apply(y, convolution(given, folded, *window), source)


def _linear(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    given = x.detach().clone()
    return Relevance.apply(functional.linear(given, w, b), matrix(given, w), x)


def _max_pool2d(
    x: Tensor,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
    return_indices: bool,
) -> Tensor:
    assert not ceil_mode
    window = {"kernel_size": kernel_size, "stride": stride, "padding": padding}
    window["dilation"] = dilation
    y = functional.max_pool2d(x.detach(), **window)
    return Relevance.apply(y, pool(x.detach().clone(), **window), x)


def _avg_pool2d(
    x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, *_: Any
) -> Tensor:
    assert padding == 0
    window = {"kernel_size": kernel_size, "stride": stride or kernel_size}
    y = functional.avg_pool2d(x.detach(), **window)
    return Relevance.apply(y, pool(x.detach().clone(), **window), x)


def _adaptive_avg_pool2d(x: Tensor, size: Any) -> Tensor:
    assert size in (1, (1, 1)), size
    return _avg_pool2d(x, tuple(x.shape[2:]))


def _add(a: Tensor, b: Tensor) -> Tensor:
    x, y = a.detach().clone(), b.detach().clone()
    return Relevance.apply(x + y, residual(x, y), a, b)


REPLACEMENTS: dict[Callable[..., Any], Callable[..., Tensor]] = {
    functional.conv2d: _conv2d,
    functional.batch_norm: _batch_norm,
    functional.linear: _linear,
    functional.max_pool2d: _max_pool2d,
    functional.avg_pool2d: _avg_pool2d,
    functional.adaptive_avg_pool2d: _adaptive_avg_pool2d,
    **dict.fromkeys([torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__iadd__], _add),
    **{f: _activation(f) for f in (functional.relu, functional.hardtanh, functional.relu6)},
}


class ZPlus(TorchFunctionMode):
    """While entered, what a network of convolutions computes carries relevances back."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return REPLACEMENTS.get(func, func)(*args, **(kwargs or {}))


def relevance(module: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """Each image's relevance to its target's logit, of the shape of `images`."""
    leaf = images.clone().requires_grad_()
    with ZPlus():
        logits = module(leaf.clone())
    (found,) = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), leaf)
    return found
