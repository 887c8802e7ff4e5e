"""AttnLRP, arXiv 2402.05602, and CP-LRP, arXiv 2202.07304: changed gradients, times the image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from onnxplain.reference.pytorch import gates, norms
from onnxplain.reference.pytorch.clamps import rectifiers
from onnxplain.reference.pytorch.replace import (
    Backward,
    Pull,
    ReplacedBackward,
    Replacements,
    Rule,
    Temperatures,
    backward_of,
    held_constant,
    replaced,
)

Function = Callable[..., Any]


def identity(
    mode: ReplacedBackward, func: Function, input: Tensor, *args: Any, **kwargs: Any
) -> Tensor:
    """f(x), with the cotangent g · f(x) / x, or g · f(0) where x = 0."""

    def compute(x: Tensor) -> Tensor:
        y: Tensor = func(x, *args, **kwargs)
        return y

    def pull(x: Tensor, g: Tensor) -> Tensor:
        return g * compute(x.clone()) / torch.where(x == 0, 1.0, x)

    return replaced(compute, input, pull)


def less(x: Any, share: float) -> Any:
    """x, of whose gradient a share goes on."""
    return x.detach() + share * (x - x.detach())


def _varies(x: Any) -> bool:
    return isinstance(x, Tensor) and x.requires_grad


def halved(mode: ReplacedBackward, func: Function, a: Any, b: Any, **kwargs: Any) -> Any:
    """A product of two, half of the gradient to each where both are of the image."""
    if not (_varies(a) and _varies(b)):
        return NotImplemented
    return func(less(a, 0.5), less(b, 0.5), **kwargs)


def einsum(mode: ReplacedBackward, func: Function, equation: Any, *factors: Any) -> Any:
    taken = sum(map(_varies, factors))
    return func(equation, *(less(x, 1 / taken) if _varies(x) else x for x in factors))


def quotient(mode: ReplacedBackward, func: Function, a: Any, b: Any, **kwargs: Any) -> Any:
    """All to the first that is of the image."""
    if _varies(a):
        b = b.detach() if isinstance(b, Tensor) else b
        if "pow" not in func.__name__:
            return func(a, b, **kwargs)
        return identity(mode, lambda x: func(x, b, **kwargs), a)
    return identity(mode, lambda x: func(a, x, **kwargs), b) if _varies(b) else NotImplemented


def attention(
    mode: ReplacedBackward, func: Function, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kws: Any
) -> Any:
    """Half to the values, half through the softmax, and of that half to queries and to keys; also
    of a module whole, in which they are linear maps of what is given."""
    return func(less(q, 0.25), less(k, 0.25), less(v, 0.5), *args, **kws)


def glu(mode: ReplacedBackward, func: Function, input: Tensor, dim: int = -1) -> Tensor:
    a, b = input.chunk(2, dim)
    product: Tensor = less(a, 0.5) * less(identity(mode, torch.sigmoid, b), 0.5)
    return product


def _centred(backward: Function, axes: Callable[..., tuple[int, ...]]) -> Backward:
    """The pull of a normalisation whose mean is not held constant."""

    def made(T: Temperatures, *args: Any, **kwargs: Any) -> Pull | None:
        pull = backward(T, *args, **kwargs)

        def both(x: Tensor, g: Tensor) -> Tensor:
            s: Tensor = pull(x, g)
            return s - s.mean(axes(*args, **kwargs), keepdim=True)

        return both if pull else None

    return made


def _group_norm(T: Temperatures, num_groups: int, *args: Any, **kwargs: Any) -> Pull:
    pull = norms.group_norm(T, num_groups, *args, **kwargs)

    def both(x: Tensor, g: Tensor) -> Tensor:
        s = pull(x, g).reshape(len(x), num_groups, -1)
        return (s - s.mean(-1, keepdim=True)).reshape(x.shape)

    return both


def _normalised(normalized_shape: Any, *_: Any, **__: Any) -> tuple[int, ...]:
    return tuple(range(-len(normalized_shape), 0))


def statistic(mode: ReplacedBackward, func: Function, *args: Any, **kwargs: Any) -> Any:
    """As semantic's, but that a mean is held constant only of what is nowhere negative: squares."""
    if func.__name__ == "mean" and args[0].min() < 0:
        return NotImplemented
    return norms.statistic(mode, func, *args, **kwargs)


_BACKWARDS: dict[Function, Backward] = {
    **dict.fromkeys(
        [functional.layer_norm, torch.layer_norm], _centred(norms.layer_norm, _normalised)
    ),
    **dict.fromkeys([functional.group_norm, torch.group_norm], _group_norm),
    **dict.fromkeys(
        [functional.instance_norm, torch.instance_norm],
        _centred(norms.instance_norm, lambda *_, **__: (-2, -1)),
    ),
}
_ELEMENTWISE = (
    *("gelu", "silu", "hardswish", "mish", "softplus", "elu", "elu_", "selu", "selu_", "celu"),
    *("celu_", "tanh", "tanh_", "softsign", "hardsigmoid", "sigmoid", "sigmoid_", "exp", "log"),
    *("sqrt", "rsqrt", "reciprocal", "abs", "erf", "square"),
)


def _found(*names: str) -> list[Function]:
    owners = (torch, Tensor, functional, torch.special)
    return [getattr(o, name) for o in owners for name in names if hasattr(o, name)]


_SHARED: dict[Function, Rule] = {
    **rectifiers(
        lambda z, g, top, T: torch.where(z > 0, z.clamp(max=top) / torch.where(z == 0, 1, z), 0)
    ),
    **dict.fromkeys(_found(*_ELEMENTWISE), identity),
    **dict.fromkeys(_found("mul", "multiply", "__mul__", "__rmul__", "__imul__"), halved),
    **dict.fromkeys(_found("matmul", "bmm", "__matmul__"), halved),
    **dict.fromkeys(_found("div", "divide", "true_divide", "__truediv__", "pow"), quotient),
    **{
        func: statistic if rule is norms.statistic else rule
        for func, rule in norms.FUNCTIONS.items()
    },
    **{func: backward_of(backward) for func, backward in _BACKWARDS.items()},
    torch.einsum: einsum,
}
ATTN_LRP = Replacements(
    {
        **_SHARED,
        functional.glu: glu,
        functional.scaled_dot_product_attention: attention,
        functional.multi_head_attention_forward: attention,
    }
)
CP_LRP = Replacements(
    {
        **_SHARED,
        **dict.fromkeys(_found("sigmoid", "sigmoid_", "hardsigmoid", "softmax"), held_constant),
        functional.glu: gates.glu,
        functional.scaled_dot_product_attention: gates.attention,
        functional.multi_head_attention_forward: gates.attention_module,
    }
)
