"""Relevance through pools, reductions and interpolation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import functional

from onnxplain.errors import NoRuleError
from onnxplain.reference.pytorch.relevance.shared import Flow
from onnxplain.reference.pytorch.relevance.sharing import by_contribution, by_positive_part
from onnxplain.reference.pytorch.replace import Rule, replaced


def pool(average: Callable[..., Tensor] | None = None) -> Rule:
    """The rule of a sum or mean over elements; of a maximum, `average` is their mean."""

    def rule(mode: Flow, func: Callable[..., Any], input: Tensor, *args: Any, **kwargs: Any) -> Any:
        sharing = mode.sharing
        if average is not None and not sharing.positive:
            return NotImplemented
        share = by_positive_part if sharing.positive else by_contribution
        pull = share(lambda x: (average or func)(x, *args, **kwargs), sharing.of_others)
        return replaced(lambda x: func(x, *args, **kwargs), input, pull)

    return rule


def average_of_window(
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    """The average pool over the windows of a max-pool."""
    if dilation not in (1, (1, 1), [1, 1]):
        raise NoRuleError("the reference has no relevance for a dilated max-pool")
    stride = stride or None  # torch's [] is "as the kernel"
    return functional.avg_pool2d(
        x, kernel_size, stride, padding, ceil_mode, count_include_pad=False
    )


def interpolate(
    flow: Flow,
    func: Callable[..., Tensor],
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    **kwargs: Any,
) -> Any:
    """Copies of the nearest element move; what is interpolated is pooled."""
    if mode.startswith("nearest"):
        return NotImplemented
    return pool()(flow, func, input, size, scale_factor, mode, **kwargs)
