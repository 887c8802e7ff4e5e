"""What the rules of relevance build on: a value whose relevance is shared, and gates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from onnxplain.reference.pytorch.relevance.sharing import Sharing
from onnxplain.reference.pytorch.replace import ReplacedBackward, replaced


class Flow(ReplacedBackward):
    """What the rules are given: the mode, which shares as a method does."""

    sharing: Sharing


class _Shared(torch.autograd.Function):
    """Forward what was computed; backward what `shares(R)` says of each of the inputs."""

    @staticmethod
    def forward(
        ctx: Any, computed: tuple[Tensor], shares: Callable[[Tensor], Sequence[Tensor]], *xs: Tensor
    ) -> Tensor:
        ctx.shares = shares
        return computed[0]

    @staticmethod
    def backward(ctx: Any, R: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *ctx.shares(R)


def shared(
    func: Callable[..., Tensor],
    first: Any,
    compute: Callable[[], Tensor],
    shares: Callable[[Tensor, Tensor], Sequence[Tensor]],
    takers: Sequence[Tensor],
) -> Tensor:
    """compute(), whose relevance R goes to the takers as shares(y, R).

    Where func works in place on its first argument, so does this, but on a view: there torch allows
    it not, and what is returned is what mostly counts (`x += y`). `compute` does not.
    """
    with torch.no_grad():
        y = compute()
    kept = y.detach().clone()  # what comes next may work in place on y
    found: Tensor = _Shared.apply((y,), lambda R: shares(kept, R), *takers)
    name = func.__name__
    in_place = name.endswith("_") and not name.endswith("__") and not first._is_view()
    return first.copy_(found) if in_place else found


def varying(values: Sequence[Any]) -> list[Tensor]:
    """The tensors that depend on the image, also those in lists."""
    flat = [v for value in values for v in (value if isinstance(value, tuple | list) else [value])]
    return [v for v in flat if isinstance(v, Tensor) and v.requires_grad]


def passed_on(x: Tensor, R: Tensor) -> Tensor:
    return R


def passes(
    mode: Flow, func: Callable[..., Any], input: Tensor, *args: Any, **kwargs: Any
) -> Tensor:
    """The rule of activations and normalisations: R, unchanged."""
    return replaced(lambda x: func(x, *args, **kwargs), input, passed_on)


# ----- gates: what only ever multiplies -----


def gate(mode: Flow, func: Callable[..., Any], input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """A sigmoid: passes where it is an activation, takes nothing where it multiplies a value."""
    y = passes(mode, func, input, *args, **kwargs)
    mark_weight(y)
    return y


def mark_weight(y: Any) -> None:
    for part in y if isinstance(y, tuple | list) else [y]:
        if isinstance(part, Tensor):
            part._onnxplain_weight = part._version  # type: ignore[attr-defined]


def is_weight(x: Tensor) -> bool:
    """Whether it is a gate, or linear in gates, and was not worked on in place since."""
    return getattr(x, "_onnxplain_weight", None) == x._version


def takers_of(operands: Sequence[Any]) -> list[Tensor]:
    """Which operands of a product take its relevance."""
    found = varying(operands)
    return found if len(found) == 1 else [x for x in found if not is_weight(x)]
