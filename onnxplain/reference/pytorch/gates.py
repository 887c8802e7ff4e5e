"""The semantic pullback of what is computed to multiply something else: it is held constant.

Every sigmoid, hard sigmoid and softmax is taken for a gate or for attention's weights, wherever it
stands in the network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from onnxplain.reference.pytorch.activations import hard_swish_gate, swish_gate
from onnxplain.reference.pytorch.replace import (
    ReplacedBackward,
    Rule,
    Temperatures,
    held_constant,
    replaced,
)


@dataclass(frozen=True)
class _Scaled:
    """What a tensor is: factor · x, as x was at that version."""

    x: Tensor
    factor: float
    version: int

    def of(self, x: Any) -> bool:
        return x is self.x and x._version == self.version


@dataclass(frozen=True)
class _GateOf:
    """What a tensor is: the gate of factor · x; `soft` is the gate of the pullback."""

    scaled: _Scaled
    soft: Callable[[Tensor, Temperatures], Tensor]


@dataclass(frozen=True)
class _Weights:
    """What a tensor is: attention's weights; `soft` are those of the pullback."""

    soft: Tensor


def gate(soft: Callable[[Tensor, Temperatures], Tensor]) -> Rule:
    """A gate, which remembers what it is the gate of: `x * gate(x)` is an activation."""

    def rule(
        mode: ReplacedBackward, func: Callable[..., Any], input: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        scaled = _marked(input, _Scaled) or _Scaled(input, 1.0, input._version)
        y = held_constant(mode, func, input, *args, **kwargs)
        if y is not input:
            _mark(y, _GateOf(scaled, soft))
        return y

    return rule


def product(mode: ReplacedBackward, func: Callable[..., Any], input: Any, other: Any) -> Any:
    """`x * sigmoid(αx)` in the spelling of a module is Swish, `x * hardsigmoid(x)` HardSwish."""
    if isinstance(input, Tensor) and isinstance(other, int | float):
        version, weights = input._version, _marked(input, _Weights)
        y = func(input, other)
        if weights:
            _mark(y, _Weights(weights.soft * other))
        elif y is not input:
            _mark(y, _Scaled(input, float(other), version))
        return y
    if (activation := _marked(other, _GateOf)) and activation.scaled.of(input):
        return _self_gated(activation, mode.T, lambda x: func(x, other), input)
    if (activation := _marked(input, _GateOf)) and activation.scaled.of(other):
        return _self_gated(activation, mode.T, lambda x: func(input, x), other)
    return NotImplemented


def _self_gated(
    activation: _GateOf, T: Temperatures, compute: Callable[[Tensor], Tensor], x: Tensor
) -> Tensor:
    factor, soft = activation.scaled.factor, activation.soft
    return replaced(compute, x, lambda z, g: g * soft(factor * z, T))


def glu(mode: ReplacedBackward, func: Callable[..., Any], input: Tensor, dim: int = -1) -> Tensor:
    """a · σ(b), of the halves a and b."""
    a, b = input.chunk(2, dim)
    return a * torch.sigmoid(b).detach()


def attention(
    mode: ReplacedBackward,
    func: Callable[..., Any],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Attention whole, nothing flowing through query, key and mask."""
    masks = [arg.detach() if isinstance(arg, Tensor) else arg for arg in args]
    if isinstance(kwargs.get("attn_mask"), Tensor):
        kwargs["attn_mask"] = kwargs["attn_mask"].detach()
    query, key, T = query.detach(), key.detach(), mode.T.attention
    y = func(query, key, value, *masks, **kwargs)
    if T == 1:
        return y
    masks = [_softer(arg, T) for arg in masks]
    kwargs = {name: _softer(arg, T) for name, arg in kwargs.items()}
    return _with_gradient_of(func(query / T, key, value, *masks, **kwargs), y)


def _softer(mask: Any, T: float) -> Any:
    """What is added to the scores, at that temperature."""
    added = isinstance(mask, Tensor) and mask.dtype != torch.bool
    return mask / T if added else mask


def weights(
    mode: ReplacedBackward, func: Callable[..., Any], input: Tensor, *args: Any, **kwargs: Any
) -> Tensor:
    """A softmax, which remembers itself at attention's temperature."""
    y = held_constant(mode, func, input, *args, **kwargs)
    if mode.T.attention != 1:
        _mark(y, _Weights(func(input.detach() / mode.T.attention, *args, **kwargs)))
    return y


def weighted(
    mode: ReplacedBackward, func: Callable[..., Any], *factors: Tensor, **kwargs: Any
) -> Any:
    """A product with attention's weights: its gradient is by those of the pullback."""
    marks = [_marked(x, _Weights) for x in factors]
    if not any(marks):
        return NotImplemented
    soft = [mark.soft if mark else x for mark, x in zip(marks, factors, strict=True)]
    return _with_gradient_of(func(*soft, **kwargs), func(*factors, **kwargs))


def dropout(
    mode: ReplacedBackward, func: Callable[..., Any], input: Tensor, *args: Any, **kwargs: Any
) -> Any:
    """In evaluation mode attention's weights stay what they are."""
    return input if _marked(input, _Weights) else NotImplemented


def _with_gradient_of(soft: Tensor, y: Tensor) -> Tensor:
    return soft + (y - soft).detach()


def attention_module(
    mode: ReplacedBackward,
    func: Callable[..., Any],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """nn.MultiheadAttention, with the projections: nothing flows into query and key."""
    given = signature(func).bind(query.detach(), key.detach(), value, *args, **kwargs).arguments
    attended, *rest = func(**given)
    if (T := mode.T.attention) == 1:
        return attended, *rest
    soft = given | {name: _softer(given.get(name), T) for name in ("attn_mask", "key_padding_mask")}
    for name in ("in_proj_weight", "in_proj_bias", "q_proj_weight"):
        if (w := given.get(name)) is not None:  # of which the first rows make the queries
            soft[name] = torch.cat([w[: query.shape[-1]] / T, w[query.shape[-1] :]])
    return _with_gradient_of(func(**soft)[0], attended), *rest


FUNCTIONS: dict[Callable[..., Any], Rule] = {
    **dict.fromkeys(
        [torch.sigmoid, torch.sigmoid_, Tensor.sigmoid, Tensor.sigmoid_, torch.special.expit],
        gate(swish_gate),
    ),
    functional.hardsigmoid: gate(hard_swish_gate),
    **dict.fromkeys(
        [functional.softmax, torch.softmax, torch.special.softmax, Tensor.softmax], weights
    ),
    **dict.fromkeys(
        [torch.matmul, torch.bmm, Tensor.matmul, Tensor.bmm, Tensor.__matmul__], weighted
    ),
    functional.dropout: dropout,
    functional.scaled_dot_product_attention: attention,
    **dict.fromkeys(
        [
            torch.mul,
            torch.multiply,
            Tensor.mul,
            Tensor.mul_,
            Tensor.multiply,
            Tensor.multiply_,
            Tensor.__mul__,
            Tensor.__rmul__,
            Tensor.__imul__,
        ],
        product,
    ),
    functional.glu: glu,
    functional.multi_head_attention_forward: attention_module,
}


def _mark(tensor: Tensor, mark: _Scaled | _GateOf | _Weights) -> None:
    tensor._onnxplain_mark = (mark, tensor._version)  # type: ignore[attr-defined]


def _marked(value: Any, kind: type[Any]) -> Any:
    """The mark of that kind, unless the tensor was worked on in place since."""
    mark, version = getattr(value, "_onnxplain_mark", (None, 0))
    return mark if isinstance(mark, kind) and version == value._version else None
