"""How relevance is shared: by z⁺, by contribution, by magnitude; and which method does what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import torch
from torch import Tensor

from onnxplain.reference.pytorch.replace import Pull

Part: TypeAlias = tuple[Tensor, Tensor, Tensor | None]
"""What stands in the place of a layer's value, weight and bias."""

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


def by_parts(product: Product, parts: Sequence[Part], R: Tensor, epsilon: float) -> Tensor:
    """Σ x' Σ_j w'_ij R_j / (z_j + ε sign z_j) over the parts (x', w', b'), z their sum."""
    with torch.enable_grad():
        xs = [x.detach().clone().requires_grad_() for x, _, _ in parts]
        z = sum(
            product(x, w) + (0 if b is None else b) for x, (_, w, b) in zip(xs, parts, strict=True)
        )
        assert isinstance(z, Tensor)
        rates = torch.autograd.grad(z, xs, R / stabilised(z.detach(), epsilon))
    taken = [x.detach() * rate for x, rate in zip(xs, rates, strict=True)]
    return torch.stack(taken).sum(0)


def alpha_beta(product: Product, w: Tensor, bias: Tensor | None, sharing: Sharing) -> Pull:
    """Twice the share of what is positive, less that of what is negative (Bach et al. 2015)."""

    def pull(x: Tensor, R: Tensor) -> Tensor:
        up, down = x.clamp(min=0), x.clamp(max=0)
        b = (None, None) if bias is None else (bias.clamp(min=0), bias.clamp(max=0))
        plus = [(up, w.clamp(min=0), b[0]), (down, w.clamp(max=0), None)]
        minus = [(up, w.clamp(max=0), b[1]), (down, w.clamp(min=0), None)]
        own = sharing.stabilizer
        return 2 * by_parts(product, plus, R, own) - by_parts(product, minus, R, own)

    return pull


def gamma(product: Product, w: Tensor, bias: Tensor | None, sharing: Sharing) -> Pull:
    """What has y's sign counts 1 + γ times (Montavon et al. 2019, Andéol et al. 2021)."""

    def more(v: Tensor, above: bool) -> Tensor:
        return v + sharing.gamma * (v.clamp(min=0) if above else v.clamp(max=0))

    def pull(x: Tensor, R: Tensor) -> Tensor:
        y = product(x, w) + (0 if bias is None else bias)
        total = torch.zeros_like(x)
        for above, of in ((True, y > 0), (False, y < 0)):
            b = None if bias is None else more(bias, above)
            parts = [
                (x.clamp(min=0), more(w, above), b),
                (x.clamp(max=0), more(w, not above), None),
            ]
            total = total + by_parts(product, parts, R * of, sharing.stabilizer)
        return total

    return pull


def flat(product: Product, w: Tensor, bias: Tensor | None, sharing: Sharing) -> Pull:
    """As much to every value that a sum reads (Lapuschkin et al. 2019)."""

    def pull(x: Tensor, R: Tensor) -> Tensor:
        ones = torch.ones_like(x), torch.ones_like(w), None
        return by_parts(product, [ones], R, sharing.stabilizer)

    return pull


def box(product: Product, w: Tensor, bias: Tensor | None, sharing: Sharing) -> Pull:
    """x w − l w⁺ − h w⁻, between the least pixel and the greatest (Montavon et al. 2017)."""

    def pull(x: Tensor, R: Tensor) -> Tensor:
        assert sharing.pixels is not None
        low, high = (end.to(x).expand_as(x) for end in sharing.pixels)
        parts = [(x, w, None), (-low, w.clamp(min=0), None), (-high, w.clamp(max=0), None)]
        return by_parts(product, parts, R, sharing.stabilizer)

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


Weighted: TypeAlias = "Callable[[Product, Tensor, Tensor | None, Sharing], Pull]"
"""(product, weight, bias, sharing) → how a layer shares."""


@dataclass(frozen=True)
class Sharing:
    """How a method shares the relevance of products, pools and sums.

    Attributes:
        convolutions_plus, matrices_plus: whether they share by z⁺, else by contribution.
        biases: whether biases take part in z⁺.
        positive: whether pools share by what is positive, a maximum being an average; else by
            contribution, a maximum giving all to the greatest.
        sums: `by_magnitude` or `by_value`.
        stabilizer: the ε of all but the sharing by contribution of layers; where 0, that too.
        own: what convolutions do in place of all that.
        first: what the first layers do, by whether they are products of matrices.
        gamma, pixels: of `gamma` and `box`.
    """

    epsilon: float
    convolutions_plus: bool
    matrices_plus: bool
    biases: bool
    positive: bool
    sums: Callable[[Sequence[Tensor], Tensor, Tensor, float], list[Tensor]]
    stabilizer: float = 0.0
    own: Weighted | None = None
    first: Mapping[bool, Weighted] = field(default_factory=dict)
    gamma: float = 0.25
    pixels: tuple[Tensor, Tensor] | None = None

    @property
    def of_others(self) -> float:
        """The ε of all but the sharing by contribution of layers."""
        return self.stabilizer or self.epsilon


SHARINGS: dict[str, Sharing] = {
    "lrp-zplus": Sharing(1e-5, True, True, biases=False, positive=True, sums=by_magnitude),
    "lrp-epsilon": Sharing(1e-6, False, False, biases=True, positive=False, sums=by_value),
    "epsilon-plus": Sharing(1e-6, True, False, biases=True, positive=False, sums=by_value),
}
"""Method → how it shares, and its own ε."""

_PLUS = replace(SHARINGS["epsilon-plus"], stabilizer=1e-6)

COMPOSITES: dict[str, Sharing] = {
    "lrp-epsilon-plus": _PLUS,
    "lrp-epsilon-plus-flat": replace(_PLUS, first={False: flat, True: flat}),
    "lrp-epsilon-gamma-box": replace(_PLUS, own=gamma, first={False: box}),
    "lrp-epsilon-alpha2-beta1": replace(_PLUS, own=alpha_beta),
    "lrp-epsilon-alpha2-beta1-flat": replace(
        _PLUS, own=alpha_beta, first={False: flat, True: flat}
    ),
}
"""Zennit's, by its names."""

SHARINGS |= COMPOSITES
