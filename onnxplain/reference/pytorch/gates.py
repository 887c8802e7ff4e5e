"""The semantic pullback of what is computed to multiply something else: it is held constant.

Every sigmoid, hard sigmoid and softmax is taken for a gate or for attention's weights, wherever it
stands in the network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
        version = input._version
        y = func(input, other)
        if y is not input:
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
    return func(query.detach(), key.detach(), value, *masks, **kwargs)


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
    return func(query.detach(), key.detach(), value, *args, **kwargs)


FUNCTIONS: dict[Callable[..., Any], Rule] = {
    **dict.fromkeys(
        [torch.sigmoid, torch.sigmoid_, Tensor.sigmoid, Tensor.sigmoid_, torch.special.expit],
        gate(swish_gate),
    ),
    functional.hardsigmoid: gate(hard_swish_gate),
    **dict.fromkeys(
        [functional.softmax, torch.softmax, torch.special.softmax, Tensor.softmax], held_constant
    ),
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
    functional.scaled_dot_product_attention: attention,
    functional.multi_head_attention_forward: attention_module,
}


def _mark(tensor: Tensor, mark: _Scaled | _GateOf) -> None:
    tensor._onnxplain_mark = (mark, tensor._version)  # type: ignore[attr-defined]


def _marked(value: Any, kind: type[Any]) -> Any:
    """The mark of that kind, unless the tensor was worked on in place since."""
    mark, version = getattr(value, "_onnxplain_mark", (None, 0))
    return mark if isinstance(mark, kind) and version == value._version else None
