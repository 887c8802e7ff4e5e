"""Relevance through layers with weights: convolutions, linear layers, batch normalisations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from onnxplain.errors import NoRuleError
from onnxplain.reference.pytorch.relevance.shared import Flow, passed_on
from onnxplain.reference.pytorch.relevance.sharing import Product, by_contribution, z_plus
from onnxplain.reference.pytorch.replace import Pull, replaced


@dataclass(frozen=True)
class _Layer:
    """What a tensor is: the product of x and weight, and a bias, before any work on it in place."""

    product: Product
    x: Tensor
    weight: Tensor
    bias: Tensor | None
    version: int = 0

    def scaled(self, scale: Tensor, shift: Tensor) -> _Layer:
        """With a batch normalisation behind it: y · scale + shift."""
        bias = shift if self.bias is None else shift + self.bias * scale
        weight = self.weight * scale.reshape(-1, *[1] * (self.weight.ndim - 1))
        return replace(self, weight=weight, bias=bias)

    def pull(self, mode: Flow) -> Pull:
        sharing, is_matrix, bias = mode.sharing, self.weight.ndim == 2, self.bias
        if bias is not None and not is_matrix:
            bias = bias.reshape(-1, *[1] * (self.weight.ndim - 2))
        own = sharing.first.get(is_matrix) if sharing.first and _is_first(self.x) else None
        own = own or (None if is_matrix else sharing.own)
        if own is not None:
            return own(self.product, self.weight, bias, sharing)
        if sharing.matrices_plus if is_matrix else sharing.convolutions_plus:
            bias = bias if sharing.biases else None
            return z_plus(self.product, self.weight, bias, sharing.of_others)

        def affine(x: Tensor) -> Tensor:
            y = self.product(x, self.weight)
            return y if bias is None else y + bias

        return by_contribution(affine, sharing.epsilon)

    def put_out(self, mode: Flow, y: Tensor) -> Tensor:
        """y, which remembers what it is."""
        if self.weight.requires_grad:
            raise NoRuleError("the reference has no relevance for weights that depend on the image")
        found = replaced(lambda x: y, self.x, self.pull(mode))
        found.grad_fn._onnxplain_weighted = True  # type: ignore[union-attr]
        found._onnxplain_layer = replace(self, version=found._version)  # type: ignore[attr-defined]
        return found


def _is_first(x: Tensor) -> bool:
    """Whether x was computed without a layer with weights."""
    waiting, seen = [x.grad_fn], set()
    while waiting:
        made = waiting.pop()
        if made is None or made in seen:
            continue
        seen.add(made)
        if getattr(made, "_onnxplain_weighted", False):
            return False
        waiting.extend(before for before, _ in made.next_functions)
    return True


def weighted(
    mode: Flow,
    func: Callable[..., Tensor],
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *geometry: Any,
    **named: Any,
) -> Tensor:
    """A convolution, or a linear layer, which has no geometry."""

    def product(x: Tensor, w: Tensor) -> Tensor:
        return func(x, w, None, *geometry, **named)

    with torch.no_grad():
        y = func(input, weight, bias, *geometry, **named)
    return _Layer(product, input, weight, bias).put_out(mode, y)


def transposed_convolution(
    mode: Flow, func: Callable[..., Tensor], *args: Any, **named: Any
) -> Tensor:
    """A batch normalisation behind it is not part of it."""
    found = weighted(mode, func, *args, **named)
    del found._onnxplain_layer  # type: ignore[attr-defined]
    return found


def batch_norm(
    mode: Flow,
    func: Callable[..., Tensor],
    input: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """With the layer before it one layer; elsewhere it passes relevance on."""
    with torch.no_grad():
        y = func(input, running_mean, running_var, weight, bias, training, momentum, eps)
        scale = (running_var + eps).rsqrt() * (1 if weight is None else weight)
        shift = (0 if bias is None else bias) - running_mean * scale
    before = getattr(input, "_onnxplain_layer", None)
    if before is None or before.version != input._version:
        return replaced(lambda x: y, input, passed_on)
    found = replaced(lambda x: y, before.x, before.scaled(scale, shift).pull(mode))
    found.grad_fn._onnxplain_weighted = True  # type: ignore[union-attr]
    return found
