"""Relevance through products and sums of values, and through attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from onnxplain.errors import NoRuleError
from onnxplain.reference.pytorch.relevance.layers import weighted
from onnxplain.reference.pytorch.relevance.shared import Flow, shared, takers_of, varying
from onnxplain.reference.pytorch.relevance.sharing import Product, by_contribution, z_plus
from onnxplain.reference.pytorch.replace import Rule, replaced


def product_of(product: Product) -> Rule:
    """The rule of a product of two values, one or both of which depend on the image."""

    def rule(mode: Flow, func: Callable[..., Tensor], a: Tensor, b: Tensor) -> Tensor:
        sharing, takers = mode.sharing, takers_of([a, b])
        given = a.detach().clone(), b.detach().clone()

        def share(x: Tensor, R: Tensor) -> Tensor:
            own, other = given if x is a else given[::-1]
            f: Product = product if x is a else lambda x, w: product(w, x)
            if sharing.matrices_plus:
                return z_plus(f, other, None, sharing.epsilon)(own, R)
            return by_contribution(lambda x: f(x, other), sharing.epsilon)(own, R)

        def shares(y: Tensor, R: Tensor) -> list[Tensor]:
            return [share(x, R / len(takers)) for x in takers]

        return shared(func, a, lambda: product(a, b), shares, takers)

    return rule


matrices = product_of(torch.matmul)


def einsum(mode: Flow, func: Callable[..., Tensor], equation: str, *operands: Any) -> Any:
    given = operands[0] if len(operands) == 1 else operands
    if len(given) != 2:
        raise NoRuleError(f"the reference has no relevance for an einsum of {len(given)} operands")
    return product_of(lambda a, b: func(equation, a, b))(mode, func, *given)


def elementwise(mode: Flow, func: Callable[..., Tensor], a: Any, b: Any, **kwargs: Any) -> Tensor:
    """All to what is weighted, nothing to its weight, a divisor or an exponent; else half each."""
    takers = takers_of([a, b])
    if "mul" not in func.__name__:
        takers = takers[:1]

    def shares(y: Tensor, R: Tensor) -> list[Tensor]:
        return [(R / len(takers)).sum_to_size(x.shape) for x in takers]

    return shared(func, a, lambda: func(_copy(a), b, **kwargs), shares, takers)


def add(mode: Flow, func: Callable[..., Tensor], a: Any, b: Any, *, alpha: float = 1) -> Any:
    """a + b, a − b and, where torch calls it so, b − a."""
    if isinstance(b, int | float) and b == 0:  # what Python's sum begins with
        return NotImplemented
    reverse = "rsub" in func.__name__
    signs = (-alpha, 1) if reverse else (1, -alpha if "sub" in func.__name__ else alpha)
    terms = [_copy(x) * sign for x, sign in zip((a, b), signs, strict=True)]
    takers, epsilon = varying([a, b]), mode.sharing.of_others
    taken = [t for x, t in zip((a, b), terms, strict=True) if varying([x])]

    def shares(y: Tensor, R: Tensor) -> list[Tensor]:
        found = mode.sharing.sums(taken, y, R, epsilon)
        return [s.sum_to_size(x.shape) for s, x in zip(found, takers, strict=True)]

    return shared(func, a, lambda: terms[0] + terms[1], shares, takers)


def extremum(mode: Flow, func: Callable[..., Tensor], a: Tensor, b: Tensor) -> Any:
    """To the value that won; beside a constant it is an activation."""
    takers = varying([a, b])
    if len(takers) > 1:
        return NotImplemented

    def shares(y: Tensor, R: Tensor) -> list[Tensor]:
        return [R.sum_to_size(x.shape) for x in takers]

    return shared(func, a, lambda: func(a, b), shares, takers)


def _copy(x: Any) -> Any:
    """Not to be changed by what works in place."""
    return x.detach().clone() if isinstance(x, Tensor) else x


def attention(
    mode: Flow,
    func: Callable[..., Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Relevance to the values alone; the weights are what attention makes of unit vectors."""
    if query.shape[-3] != value.shape[-3]:
        raise NoRuleError("the reference has no relevance for attention with grouped queries")
    with torch.no_grad():
        units = torch.eye(key.shape[-2], dtype=value.dtype, device=value.device)
        units = units.expand(*key.shape[:-2], *units.shape)
        weights = func(query, key, units, *args, **kwargs)
    return matrices(mode, torch.matmul, weights, value)


def attention_module(
    mode: Flow,
    func: Callable[..., Any],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    **others: Any,
) -> tuple[Tensor, None]:
    """nn.MultiheadAttention on [P, N, C]: two linear layers and attention between them."""
    masked = others.get("attn_mask") is not None or others.get("key_padding_mask") is not None
    if in_proj_weight is None or bias_k is not None or add_zero_attn or masked:
        raise NoRuleError("the reference has no relevance for this kind of MultiheadAttention")
    positions, batch, width = query.shape
    biases = (None, None, None) if in_proj_bias is None else in_proj_bias.chunk(3)
    (Wq, Wk, Wv), (bq, bk, bv) = in_proj_weight.chunk(3), biases

    def heads(x: Tensor) -> Tensor:  # [N · heads, P, C / heads]
        return x.reshape(len(x), batch * num_heads, width // num_heads).transpose(0, 1)

    with torch.no_grad():
        q, k = heads(functional.linear(query, Wq, bq)), heads(functional.linear(key, Wk, bk))
    v = heads(weighted(mode, functional.linear, value, Wv, bv))
    mixed = attention(mode, functional.scaled_dot_product_attention, q, k, v)
    joined = mixed.transpose(0, 1).reshape(positions, batch, width)
    return weighted(mode, functional.linear, joined, out_proj_weight, out_proj_bias), None


def weights(
    mode: Flow, func: Callable[..., Tensor], input: Tensor, *args: Any, **kwargs: Any
) -> Tensor:
    """A softmax: attention's weights, held constant."""
    return func(input.detach(), *args, **kwargs)


def gated_halves(mode: Flow, func: Callable[..., Tensor], input: Tensor, dim: int = -1) -> Tensor:
    """a · σ(b), of the halves a and b: all to a."""
    return replaced(
        lambda x: func(x, dim), input, lambda x, R: torch.cat([R, torch.zeros_like(R)], dim)
    )
