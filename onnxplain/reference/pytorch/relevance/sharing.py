"""How relevance is shared: by z⁺, by contribution, by magnitude; and which method does what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from onnxplain.reference.pytorch.replace import Pull

Product: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Linear in each of two operands."""


def z_plus(product: Product, w: Tensor, bias: Tensor | None, epsilon: float) -> Pull:
    """R_i = Σ_j (x_i⁺ w_ij⁺ + x_i⁻ w_ij⁻) / (z_j + ε) · R_j, z_j their sum over i, and b_j⁺."""

    def pull(x: Tensor, R: Tensor) -> Tensor:
        with torch.enable_grad():
            parts = [part.detach().requires_grad_() for part in (x.clamp(min=0), x.clamp(max=0))]
            z = product(parts[0], w.clamp(min=0)) + product(parts[1], w.clamp(max=0))
            if bias is not None:
                z = z + bias.clamp(min=0)
            rates = torch.autograd.grad(z, parts, R / (z.detach() + epsilon))
        return parts[0].detach() * rates[0] + parts[1].detach() * rates[1]

    return pull


def by_contribution(affine: Callable[[Tensor], Tensor], epsilon: float) -> Pull:
    """R_i = Σ_j x_i ∂y_j/∂x_i / (y_j + ε sign y_j) · R_j, the sign of 0 being +1."""

    def pull(x: Tensor, R: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            y = affine(x)
            (rate,) = torch.autograd.grad(y, x, R / stabilised(y.detach(), epsilon))
        return x.detach() * rate

    return pull


def by_positive_part(average: Callable[[Tensor], Tensor], epsilon: float) -> Pull:
    """R_i = Σ_j x_i⁺ w_ij / (Σ_i x_i⁺ w_ij + ε) · R_j, w ≥ 0 the weights of an average."""

    def pull(x: Tensor, R: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().clamp(min=0).requires_grad_()
            z = average(x)
            (rate,) = torch.autograd.grad(z, x, R / (z.detach() + epsilon))
        return x.detach() * rate

    return pull


def by_magnitude(terms: Sequence[Tensor], y: Tensor, R: Tensor, epsilon: float) -> list[Tensor]:
    """R · |a| / (|a| + |b| + ε); all of it where there is one term besides constants."""
    if len(terms) == 1:
        return [R]
    total = torch.stack([term.expand_as(y).abs() for term in terms]).sum(0) + epsilon
    return [R * term.abs() / total for term in terms]


def by_value(terms: Sequence[Tensor], y: Tensor, R: Tensor, epsilon: float) -> list[Tensor]:
    """R · a / (y + ε sign y): a constant keeps its part."""
    return [R * term / stabilised(y, epsilon) for term in terms]


def stabilised(y: Tensor, epsilon: float) -> Tensor:
    return y + torch.where(y < 0, -epsilon, epsilon)


@dataclass(frozen=True)
class Sharing:
    """How a method shares the relevance of products, pools and sums.

    Attributes:
        convolutions_plus, matrices_plus: whether they share by z⁺, else by contribution.
        biases: whether biases take part in z⁺.
        positive: whether pools share by what is positive, a maximum being an average; else by
            contribution, a maximum giving all to the greatest.
        sums: `by_magnitude` or `by_value`.
    """

    epsilon: float
    convolutions_plus: bool
    matrices_plus: bool
    biases: bool
    positive: bool
    sums: Callable[[Sequence[Tensor], Tensor, Tensor, float], list[Tensor]]


SHARINGS: dict[str, Sharing] = {
    "lrp-zplus": Sharing(1e-5, True, True, biases=False, positive=True, sums=by_magnitude),
    "lrp-epsilon": Sharing(1e-6, False, False, biases=True, positive=False, sums=by_value),
    "epsilon-plus": Sharing(1e-6, True, False, biases=True, positive=False, sums=by_value),
}
"""Method → how it shares, and its own ε."""
