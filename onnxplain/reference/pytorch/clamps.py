"""torch's spellings of ReLU and ReLU6."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from onnxplain.reference.pytorch.replace import Pull, Rule, Temperatures, backward_of

Gate: TypeAlias = Callable[[Tensor, Tensor, float, Temperatures], Tensor]
"""(z, g, top, T) → the factor of g in the backward pass of y = min(max(z, 0), top)."""


def rectifiers(gate: Gate) -> dict[Callable[..., Any], Rule]:
    """Every spelling of ReLU and ReLU6, with the backward g · gate; other clamps are left alone."""

    def rule(read: Callable[..., tuple[Any, Any]]) -> Rule:
        def backward(T: Temperatures, *args: Any, **kwargs: Any) -> Pull | None:
            top = top_of(*read(*args, **kwargs))
            return None if top is None else lambda z, g: g * gate(z, g, top, T)

        return backward_of(backward)

    return {func: rule(read) for func, read in CLAMPS.items()}


def _relu(inplace: bool = False, *, top: float | None = None) -> tuple[Any, Any]:
    return 0, top


def _hardtanh(
    min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> tuple[Any, Any]:
    return min_val, max_val


def _clamp(min: Any = None, max: Any = None) -> tuple[Any, Any]:
    tensors = isinstance(min, Tensor) or isinstance(max, Tensor)
    return (math.nan, math.nan) if tensors else (min, max)  # bounds that are tensors are no ReLU's


CLAMPS: dict[Callable[..., Any], Callable[..., tuple[Any, Any]]] = {
    functional.relu: _relu,
    torch.relu: _relu,
    torch.relu_: _relu,  # also functional.relu_
    Tensor.relu: _relu,
    Tensor.relu_: _relu,
    functional.relu6: partial(_relu, top=6),
    functional.hardtanh: _hardtanh,  # also what nn.ReLU6 calls
    functional.hardtanh_: _hardtanh,
    torch.clamp: _clamp,
    torch.clamp_: _clamp,
    torch.clamp_min: _clamp,
    torch.clip: _clamp,
    torch.clip_: _clamp,
    Tensor.clamp: _clamp,
    Tensor.clamp_: _clamp,
    Tensor.clamp_min: _clamp,
    Tensor.clamp_min_: _clamp,
    Tensor.clip: _clamp,
    Tensor.clip_: _clamp,
}
"""torch function → how to read (lowest, highest) from its arguments after the first."""


def top_of(lowest: Any, highest: Any) -> float | None:
    """The top of a clamp that is a ReLU, a ReLU6, or a ReLU with a bound that cuts nothing in
    practice, from 10⁴ on; None of others."""
    if lowest != 0:
        return None
    top = math.inf if highest is None else float(highest)
    return top if top == 6 or top >= 1e4 else None
