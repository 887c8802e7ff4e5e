"""Relevance in place of gradients: the z+ rules of VITAL (Görgün et al., arXiv 2503.22399).

While `RelevanceFlow` is entered, networks run as ever, but what autograd carries back is relevance.
Convolutions and linear layers distribute it by z+ without their biases (a BatchNorm that follows a
convolution at once is part of it); maxima as averages, averages in proportion; sums by absolute
values; attention goes through its values alone; activations and normalisations pass it on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from onnxplain.errors import NoRuleError
from onnxplain.reference.pytorch.replace import (
    Pull,
    ReplacedBackward,
    Replacements,
    Rule,
    backward_of,
    replaced,
)

EPSILON = 1e-5

_Linear: TypeAlias = Callable[[Tensor, Tensor], Tensor]


class RelevanceFlow(ReplacedBackward):
    """While entered, the backward pass carries relevance.

    Parameters must not require gradients: what requires one is what depends on the image.

    Raises:
        NoRuleError: a function has no rule, on the way of the image.
    """

    def __init__(self) -> None:
        super().__init__(Replacements(_FUNCTIONS), 1.0)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        found = super().__torch_function__(func, types, args, kwargs)
        if func in _FUNCTIONS or func in _MOVES:
            return found
        for part in found if isinstance(found, tuple | list) else [found]:
            if isinstance(part, Tensor) and part.requires_grad:
                raise NoRuleError(f"the reference has no rule of relevance for {func}")
        return found


def z_plus(linear: _Linear, weight: Tensor) -> Pull:
    """R_i = Σ_j (x_i⁺ w_ij⁺ + x_i⁻ w_ij⁻) / (z_j + ε) · R_j, z_j being the sum of these over i."""

    def pull(x: Tensor, R: Tensor) -> Tensor:
        with torch.enable_grad():
            parts = x.detach().clamp(min=0), x.detach().clamp(max=0)
            for part in parts:
                part.requires_grad_()
            z = linear(parts[0], weight.clamp(min=0)) + linear(parts[1], weight.clamp(max=0))
            rates = torch.autograd.grad(z, parts, R / (z.detach() + EPSILON))
        return parts[0].detach() * rates[0] + parts[1].detach() * rates[1]

    return pull


@dataclass(frozen=True)
class _Convolved:
    """What a tensor is: x convolved, before any work on it in place."""

    x: Tensor
    weight: Tensor
    convolve: _Linear
    version: int


def _conv2d(
    mode: ReplacedBackward,
    func: Callable[..., Tensor],
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *geometry: Any,
    **named: Any,
) -> Tensor:
    def convolve(x: Tensor, w: Tensor) -> Tensor:
        return func(x, w, None, *geometry, **named)

    y = replaced(
        lambda x: func(x, weight, bias, *geometry, **named), input, z_plus(convolve, weight)
    )
    y._onnxplain_convolved = _Convolved(input, weight, convolve, y._version)  # type: ignore[attr-defined]
    return y


def _batch_norm(
    mode: ReplacedBackward,
    func: Callable[..., Tensor],
    input: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor,
    bias: Tensor,
    training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    """With the convolution before it one convolution; elsewhere an activation."""
    with torch.no_grad():
        y = func(input, running_mean, running_var, weight, bias, training, momentum, eps)
    before = getattr(input, "_onnxplain_convolved", None)
    if before is None or before.version != input._version:
        return replaced(lambda x: y, input, _passed_on)
    scale = weight / (running_var + eps).sqrt()
    pull = z_plus(before.convolve, before.weight * scale.reshape(-1, 1, 1, 1))
    return replaced(lambda x: y, before.x, pull)


def _linear(T: float, weight: Tensor, bias: Tensor | None = None) -> Pull:
    return z_plus(functional.linear, weight)


def _passed_on(x: Tensor, R: Tensor) -> Tensor:
    return R


def _passes(T: float, *args: Any, **kwargs: Any) -> Pull:
    return _passed_on


def _average(pool: Callable[..., Tensor]) -> Callable[..., Pull]:
    """x_i⁺ · w_i / (Σ x⁺ w + ε) of R, w the weights of an average."""

    def backward(T: float, *args: Any, **kwargs: Any) -> Pull:
        def pull(x: Tensor, R: Tensor) -> Tensor:
            with torch.enable_grad():
                x = x.detach().clamp(min=0).requires_grad_()
                z = pool(x, *args, **kwargs)
                (rate,) = torch.autograd.grad(z, x, R / (z.detach() + EPSILON))
            return x.detach() * rate

        return pull

    return backward


def _average_of_window(
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    """The average pool over the windows of a max-pool."""
    if dilation not in (1, (1, 1), [1, 1]):
        raise NoRuleError("the reference has no relevance for a dilated max-pool")
    return functional.avg_pool2d(
        x, kernel_size, stride, padding, ceil_mode, count_include_pad=False
    )


class _Sum(torch.autograd.Function):
    """a + b, whose relevance is divided as |a| : |b|."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a.detach().clone(), b.detach().clone())
        return a + b

    @staticmethod
    def backward(ctx: Any, R: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        a, b = (x.abs() for x in ctx.saved_tensors)
        rate = R / (a + b + EPSILON)
        return a * rate, b * rate


def _add(mode: ReplacedBackward, func: Callable[..., Any], a: Any, b: Any) -> Any:
    """A constant is a bias and takes nothing."""
    if isinstance(a, Tensor) and isinstance(b, Tensor) and a.requires_grad and b.requires_grad:
        if a.shape != b.shape:
            raise NoRuleError("the reference has no relevance for sums that broadcast")
        return _Sum.apply(a, b)
    return NotImplemented


def _scale(mode: ReplacedBackward, func: Callable[..., Any], a: Any, b: Any) -> Any:
    """By a constant: passes."""
    if isinstance(b, Tensor) and b.requires_grad:
        a, b = b, a
    if isinstance(b, Tensor) and b.requires_grad:
        raise NoRuleError("the reference has no relevance for products of two values")
    return replaced(lambda x: func(x, b), a, _passed_on)


def _attention(
    mode: ReplacedBackward,
    func: Callable[..., Any],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor,
    in_proj_bias: Tensor,
    bias_k: None,
    bias_v: None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor,
    **others: Any,
) -> tuple[Tensor, None]:
    """nn.MultiheadAttention on [P, N, C]: three linear layers' worth of z+, in values alone."""
    positions, batch, width = query.shape
    (Wq, Wk, Wv), (bq, bk, bv) = in_proj_weight.chunk(3), in_proj_bias.chunk(3)

    def heads(x: Tensor) -> Tensor:  # [N · heads, P, C / heads]
        return x.reshape(len(x), batch * num_heads, width // num_heads).transpose(0, 1)

    def dense(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return replaced(lambda x: functional.linear(x, w, b), x, z_plus(functional.linear, w))

    with torch.no_grad():
        q, k = heads(functional.linear(query, Wq, bq)), heads(functional.linear(key, Wk, bk))
        weights = (q @ k.transpose(1, 2) / (width // num_heads) ** 0.5).softmax(dim=-1)
    v = heads(dense(value, Wv, bv))
    mixed = replaced(lambda x: weights @ x, v, z_plus(lambda x, w: w @ x, weights))
    joined = mixed.transpose(0, 1).reshape(positions, batch, width)
    return dense(joined, out_proj_weight, out_proj_bias), None


_POOLS: dict[Callable[..., Any], Callable[..., Tensor]] = {
    functional.max_pool2d: _average_of_window,
    torch.max_pool2d: _average_of_window,
    functional.avg_pool2d: functional.avg_pool2d,
    functional.adaptive_avg_pool2d: functional.adaptive_avg_pool2d,
}
_FUNCTIONS: dict[Callable[..., Any], Rule] = {
    **dict.fromkeys([functional.conv2d, torch.conv2d], _conv2d),
    functional.linear: backward_of(_linear),
    functional.batch_norm: _batch_norm,
    functional.multi_head_attention_forward: _attention,
    **{func: backward_of(_average(pool)) for func, pool in _POOLS.items()},
    **dict.fromkeys([torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__iadd__], _add),
    **dict.fromkeys([torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__], _scale),
    **dict.fromkeys(
        [
            *(functional.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_),
            *(functional.relu6, functional.hardtanh, functional.hardtanh_, functional.gelu),
            *(functional.layer_norm, torch.layer_norm),
        ],
        backward_of(_passes),
    ),
}
_MOVES: set[Callable[..., Any]] = {
    *(torch.cat, torch.flatten, torch.permute, functional.dropout, functional.pad),
    *(Tensor.flatten, Tensor.permute, Tensor.reshape, Tensor.view, Tensor.transpose),
    *(Tensor.expand, Tensor.contiguous, Tensor.clone, Tensor.__getitem__, Tensor.requires_grad_),
}
"""Each number goes back to where it came from, as its gradient does."""
