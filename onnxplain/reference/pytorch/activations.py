"""The semantic pullback of activations: z · gate(z), the gate softened and held constant."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from onnxplain.reference.pytorch.clamps import rectifiers
from onnxplain.reference.pytorch.replace import Backward, Pull, Rule, Temperatures, backward_of

SELU_SCALE = 1.0507009873554805


def phi(u: Tensor) -> Tensor:
    """The standard normal distribution function."""
    return 0.5 * (1 + torch.erf(u / math.sqrt(2)))


def relu_gate(z: Tensor, T: Temperatures) -> Tensor:
    return phi(z / T.relu)


def swish_gate(z: Tensor, T: Temperatures) -> Tensor:
    return torch.sigmoid(z / T.silu)


def hard_swish_gate(z: Tensor, T: Temperatures) -> Tensor:
    return (z / (6 * T.silu) + 0.5).clamp(0, 1)


def gelu(T: Temperatures, approximate: str = "none") -> Pull:
    return lambda z, g: g * phi(z / T.gelu)


def silu(T: Temperatures, inplace: bool = False) -> Pull:
    return lambda z, g: g * swish_gate(z, T)


def hardswish(T: Temperatures, inplace: bool = False) -> Pull:
    return lambda z, g: g * hard_swish_gate(z, T)


def mish(T: Temperatures, inplace: bool = False) -> Pull:
    return lambda z, g: g * torch.tanh(torch.log1p(torch.exp(z / T.silu)))


def leaky_relu(T: Temperatures, negative_slope: float = 0.01, inplace: bool = False) -> Pull:
    return lambda z, g: g * (negative_slope + (1 - negative_slope) * relu_gate(z, T))


def prelu(T: Temperatures, weight: Tensor) -> Pull:
    def pull(z: Tensor, g: Tensor) -> Tensor:
        slope = weight.reshape(-1, *[1] * (z.ndim - 2)) if z.ndim > 1 else weight
        return g * (slope + (1 - slope) * relu_gate(z, T))

    return pull


def elu(
    T: Temperatures,
    alpha: float = 1.0,
    scale: float = 1.0,
    input_scale: float = 1.0,
    inplace: bool = False,
) -> Pull:
    return lambda z, g: g * relu_gate(z, T)


def selu(T: Temperatures, inplace: bool = False) -> Pull:
    return lambda z, g: g * SELU_SCALE * relu_gate(z, T)


def celu(T: Temperatures, alpha: float = 1.0, inplace: bool = False) -> Pull:
    return lambda z, g: g * relu_gate(z, T)


def softplus(T: Temperatures, beta: float = 1.0, threshold: float = 20.0) -> Pull:
    """softplus(βz)/β: the gate is that of βz."""
    return lambda z, g: g * relu_gate(beta * z, T)


_BACKWARDS: dict[Callable[..., Any], Backward] = {
    functional.gelu: gelu,
    functional.silu: silu,
    functional.hardswish: hardswish,
    functional.mish: mish,
    functional.softplus: softplus,
    **dict.fromkeys([functional.leaky_relu, functional.leaky_relu_], leaky_relu),
    **dict.fromkeys([functional.prelu, Tensor.prelu], prelu),
    **dict.fromkeys([functional.elu, functional.elu_], elu),
    **dict.fromkeys([functional.selu, torch.selu, torch.selu_], selu),
    **dict.fromkeys([functional.celu, torch.celu, torch.celu_], celu),
}
FUNCTIONS: dict[Callable[..., Any], Rule] = {
    **rectifiers(lambda z, g, top, T: relu_gate(z, T)),
    **{func: backward_of(backward) for func, backward in _BACKWARDS.items()},
}
MODULES: dict[str, Backward] = dict.fromkeys(
    ["NewGELUActivation", "FastGELUActivation", "AccurateGELUActivation"], gelu
)
"""transformers' spellings of GELU by tanh."""
