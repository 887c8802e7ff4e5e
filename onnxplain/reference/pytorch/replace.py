"""Replacing derivatives while a network runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.overrides import TorchFunctionMode

from onnxplain.reference.pytorch.programs import as_function

Pull: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(x, g) → the cotangent of the input x, of its shape, given that of the output."""

Rule: TypeAlias = Callable[..., Any]
"""rule(mode, func, *args, **kwargs) → what func(*args, **kwargs) returns, with a backward pass of
its own; NotImplemented leaves the call alone."""

Backward: TypeAlias = Callable[..., Pull | None]
"""backward(T, *args, **kwargs) → the Pull of a call func(input, *args, **kwargs), or None to leave
the call alone. Its parameters are torch's, so that it says what each argument is."""


class Temperatures(NamedTuple):
    """The temperature of each kind of operation, for the methods that soften it."""

    relu: float = 1.0
    gelu: float = 1.0
    silu: float = 1.0
    max_pool: float = 1.0
    attention: float = 1.0


@dataclass(frozen=True)
class Replacements:
    """What a method replaces: torch functions, and modules that are one operation spelled out.

    `modules` maps a class's name to the backward of its instances, called with T alone.
    """

    functions: Mapping[Callable[..., Any], Rule] = field(default_factory=dict)
    modules: Mapping[str, Backward] = field(default_factory=dict)


NEUTRAL = Temperatures()


class ReplacedBackward(TorchFunctionMode):
    """While entered, the replaced functions and modules have their new derivative.

    Attributes:
        T: the temperatures.
        running: the modules whose forward is being executed, the innermost last.
    """

    def __init__(self, replacements: Replacements, T: Temperatures = NEUTRAL) -> None:
        super().__init__()
        self.replacements = replacements
        self.T = T
        self.running: list[nn.Module] = []

    def __enter__(self) -> ReplacedBackward:
        self.hooks = (
            register_module_forward_pre_hook(self._begin),
            register_module_forward_hook(self._end),
        )
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, traceback)  # type: ignore[no-untyped-call]
        for hook in self.hooks:
            hook.remove()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        plain, given = as_function(func, args)
        rule = self.replacements.functions.get(plain)
        result = rule(self, plain, *given, **kwargs) if rule else NotImplemented
        result = func(*args, **kwargs) if result is NotImplemented else result
        if plain in _FINAL:
            result._onnxplain_activated = args[0]
        return result

    def _begin(self, module: nn.Module, args: Any) -> None:
        self.running.append(module)

    def _end(self, module: nn.Module, args: Any, output: Any) -> Any:
        self.running.pop()
        backward = self.replacements.modules.get(type(module).__name__)
        pull = backward(self.T) if backward else None
        return replaced(lambda x: output.detach(), args[0], pull) if pull else output


_FINAL = frozenset(
    getattr(owner, name)
    for owner in (torch, Tensor, functional)
    for name in ("softmax", "log_softmax", "sigmoid")
)
"""What probabilities are made of logits by: the result remembers them."""


class _Replaced(torch.autograd.Function):
    """Forward the y that was computed from x; backward pull(x, g)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, computed: tuple[Tensor], pull: Pull) -> Tensor:
        ctx.save_for_backward(x)
        ctx.pull = pull
        return computed[0]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        return ctx.pull(x, g), None, None


def replaced(compute: Callable[[Tensor], Tensor], x: Tensor, pull: Pull) -> Tensor:
    """compute(x), whose backward is `pull`. Where it works in place, so does this."""
    given = x.detach().clone()
    with torch.no_grad():
        y = compute(given)
    if y is given:
        # In place, the backward pass still wants the x from before.
        return x.copy_(_Replaced.apply(x.clone(), (y,), pull))
    return _Replaced.apply(x, (y,), pull)


def backward_of(backward: Backward) -> Rule:
    """The rule that gives a function of one tensor this backward."""

    def rule(
        mode: ReplacedBackward, func: Callable[..., Any], input: Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        pull = backward(mode.T, *args, **kwargs)
        if pull is None:
            return NotImplemented
        return replaced(lambda x: func(x, *args, **kwargs), input, pull)

    return rule


def held_constant(
    mode: ReplacedBackward, func: Callable[..., Any], input: Tensor, *args: Any, **kwargs: Any
) -> Tensor:
    """The rule of a function through which nothing flows back."""
    given = input.detach().clone()
    y: Tensor = func(given, *args, **kwargs)
    return input.copy_(y) if y is given else y.detach()
