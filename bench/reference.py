"""The explanations in PyTorch, written apart from the exporter: what a graph is measured against.

`explain` runs any classifier as it is and replaces, while it runs, the derivative of the two
operations that the methods speak of: the ReLU (and ReLU6) and the max-pool. A
`TorchFunctionMode` sees every call of a torch function, whether a module, a functional or a
tensor's method makes it, so no model is edited. Forward values stay exact; only the backward
pass changes. Everything works in float32 and float64.

Formulas: excitation: Satkiewicz, arXiv 2507.22832 v1; guided: Springenberg et al. 2015,
arXiv 1412.6806; deconvnet: Zeiler & Fergus 2014, arXiv 1311.2901. That excitation and deconvnet
treat ReLU6 as they treat ReLU, and guided as ReLU with a second cut, is onnxplain's own choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from onnxplain.errors import InputError

EXCITATION_TEMPERATURE = 0.3

Gate = Callable[[Tensor, Tensor, float, float], Tensor]
"""(z, g, top, T) → the factor of g in the backward pass of y = min(max(z, 0), top)."""

GATES: dict[str, Gate] = {
    "excitation": lambda z, g, top, T: torch.sigmoid(z / T),
    "guided": lambda z, g, top, T: (z > 0) & (z < top) & (g > 0),
    "deconvnet": lambda z, g, top, T: g > 0,
}
METHODS = ("gradient", "input-x-gradient", *GATES)


def explain(
    module: nn.Module,
    images: Tensor,
    targets: Tensor,
    method: str,
    temperature: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Run a classifier and explain its logits.

    Args:
        module: in evaluation mode, of the dtype of `images`; maps [N, C, H, W] to logits
            [N, classes]. TorchScript and compiled modules hide their calls: pass the plain one.
        images: [N, C, H, W].
        targets: int64 [N] or [N, K]: classes; negative ones count from the top of the ranking.
        method: one of `METHODS`.
        temperature: the T of "excitation" (0.3 where None); no other method reads it.

    Returns:
        logits [N, classes], and the pullback, of shape [N, C, H, W] or [N, K, C, H, W].

    Raises:
        InputError: an unknown method, a temperature that is not positive, a module in training
            mode or without logits of [N, classes], targets of a wrong shape or out of range.
    """
    if method not in METHODS:
        raise InputError(f"the reference has no method {method!r}; it has {', '.join(METHODS)}")
    T = EXCITATION_TEMPERATURE if temperature is None else temperature
    if not T > 0:
        raise InputError(f"the temperature must be positive, not {T}")
    if module.training:
        raise InputError("the module is in training mode; call module.eval() first")

    leaf = images.detach().requires_grad_()
    with torch.enable_grad():
        with _ReplacedBackward(method, T):
            # A copy, because the module's first operation may work in place.
            logits = module(leaf.clone())
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            raise InputError("the module must return logits, one tensor of shape [N, classes]")
        classes = resolve_targets(logits.detach(), targets).reshape(len(images), -1)
        # In evaluation mode no image sees another: one sweep over their sum explains each.
        seeds = logits.gather(1, classes).sum(dim=0)
        sweeps = [torch.autograd.grad(seed, leaf, retain_graph=True)[0] for seed in seeds]
    pullback = torch.stack(sweeps, dim=1)
    if method == "input-x-gradient":
        pullback = images.detach()[:, None] * pullback
    return logits.detach(), pullback.reshape(*targets.shape, *images.shape[1:])


def resolve_targets(logits: Tensor, targets: Tensor) -> Tensor:
    """Classes ≥ 0 for targets of which the negative ones count from the top of the ranking.

    Args:
        logits: [N, classes]. Of equal logits the lower class ranks first, as in ONNX's TopK.
        targets: int64 [N] or [N, K]: -1 is the predicted class, -2 the runner-up.

    Returns:
        int64, of the shape of `targets`.

    Raises:
        InputError: a wrong shape, or a target outside [-classes, classes).
    """
    n, classes = logits.shape
    if targets.ndim not in (1, 2) or len(targets) != n:
        raise InputError(f"targets must be [N] or [N, K] with N = {n}, not {list(targets.shape)}")
    if ((targets < -classes) | (targets >= classes)).any():
        raise InputError(f"targets must lie in [{-classes}, {classes})")
    ranking = logits.argsort(dim=1, descending=True, stable=True)
    ranks = (-1 - targets).clamp(min=0)
    ranked = ranking.gather(1, ranks.reshape(n, -1)).reshape(targets.shape)
    return torch.where(targets < 0, ranked, targets)


# --- the replaced derivatives ---------------------------------------------------------------


class _Gated(torch.autograd.Function):
    """Forward min(max(z, 0), top); backward g · gate(z, g, top, T)."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, top: float, gate: Gate, T: float) -> Tensor:
        ctx.save_for_backward(z)
        ctx.gate, ctx.top, ctx.T = gate, top, T
        return z.clamp(0, top)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        (z,) = ctx.saved_tensors
        return g * ctx.gate(z, g, ctx.top, ctx.T), None, None, None


class _SoftMaxPool(torch.autograd.Function):
    """Forward the max-pool; backward the gradient of s = Σ x_i w_i, w = softmax(x/T) per window.

    The gradient goes through the weights too: ∂s/∂x_i = w_i (1 + (x_i − s)/T).
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        max_pool: Callable[[Tensor], Tensor],
        windows: Callable[..., Tensor],
        T: float,
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.windows, ctx.T = windows, T
        return max_pool(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        (x,), T = ctx.saved_tensors, ctx.T
        with torch.enable_grad():
            source = x.detach().requires_grad_()
            x = ctx.windows(source, g.shape)
        w = torch.softmax(x / T, dim=-1)
        s = (x * w).sum(dim=-1, keepdim=True)
        # Each element adds up what it receives from its windows: the transpose of the gather.
        (gradient,) = torch.autograd.grad(x, source, g[..., None] * w * (1 + (x - s) / T))
        return gradient, None, None, None


def _windows(
    x: Tensor,
    shape: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """The elements of each window of a pool with d = len(kernel) spatial axes.

    Args:
        x: [..., *sizes], the last d axes spatial.
        shape: of the pool's output, [..., *outputs].

    Returns:
        [..., *outputs, elements of a window]; 0 where a window reads padding or, by ceil_mode,
        hangs over the end.
    """
    first = x.ndim - len(kernel)
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    pads: list[int] = []
    for axis, (span, step, before) in enumerate(zip(spans, stride, padding, strict=True), first):
        # What the last window needs beyond the end; negative where it leaves elements unread.
        after = (shape[axis] - 1) * step + span - before - x.shape[axis]
        pads = [before, after, *pads]  # functional.pad counts from the last axis
    x = functional.pad(x, pads)
    for axis, (span, step, apart) in enumerate(zip(spans, stride, dilation, strict=True), first):
        x = x.unfold(axis, span, step)[..., ::apart]
    return x.flatten(-len(kernel))


# --- which calls of torch they replace -------------------------------------------------------


def _relu(input: Tensor, inplace: bool = False) -> tuple[Tensor, Any, Any, bool]:
    return input, 0, None, inplace


def _relu6(input: Tensor, inplace: bool = False) -> tuple[Tensor, Any, Any, bool]:
    return input, 0, 6, inplace


def _hardtanh(
    input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> tuple[Tensor, Any, Any, bool]:
    return input, min_val, max_val, inplace


def _clamp(
    input: Tensor, min: Any = None, max: Any = None, inplace: bool = False
) -> tuple[Tensor, Any, Any, bool]:
    return input, min, max, inplace


_CLAMPS: dict[Callable[..., Any], Callable[..., tuple[Tensor, Any, Any, bool]]] = {
    functional.relu: _relu,
    torch.relu: _relu,
    torch.relu_: partial(_relu, inplace=True),  # also functional.relu_
    Tensor.relu: _relu,
    Tensor.relu_: partial(_relu, inplace=True),
    functional.relu6: _relu6,
    functional.hardtanh: _hardtanh,  # also what nn.ReLU6 calls
    functional.hardtanh_: partial(_hardtanh, inplace=True),
    torch.clamp: _clamp,
    torch.clamp_: partial(_clamp, inplace=True),
    torch.clip: _clamp,
    torch.clip_: partial(_clamp, inplace=True),
    Tensor.clamp: _clamp,
    Tensor.clamp_: partial(_clamp, inplace=True),
    Tensor.clip: _clamp,
    Tensor.clip_: partial(_clamp, inplace=True),
}
"""torch function → how to read (input, lowest, highest, in place?) from its arguments."""

_TOPS: dict[tuple[Any, Any], float] = {(0, None): math.inf, (0, math.inf): math.inf, (0, 6): 6.0}
"""(lowest, highest) of the clamps that are a ReLU or ReLU6 → their top."""

_MAX_POOLS: dict[Callable[..., Any], int] = {
    functional.max_pool1d: 1,
    functional.max_pool2d: 2,
    functional.max_pool3d: 3,
    torch.max_pool1d: 1,
    torch.max_pool2d: 2,
    torch.max_pool3d: 3,
}
"""torch function → spatial axes. Pools that return indices, adaptive pools and reductions keep
their gradient."""


class _ReplacedBackward(TorchFunctionMode):
    """While entered, ReLU, ReLU6 and max-pool have the derivative of the method."""

    def __init__(self, method: str, T: float) -> None:
        super().__init__()
        self.gate = GATES.get(method)
        self.softens_pools = method == "excitation"
        self.T = T

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if self.gate and func in _CLAMPS:
            z, lowest, highest, inplace = _CLAMPS[func](*args, **kwargs)
            top = _TOPS.get((lowest, highest))
            if top is not None:
                # In place, the backward pass still wants the z from before.
                y = _Gated.apply(z.clone() if inplace else z, top, self.gate, self.T)
                return z.copy_(y) if inplace else y
        if self.softens_pools and func in _MAX_POOLS:
            return self._max_pool(func, *args, **kwargs)
        return func(*args, **kwargs)

    def _max_pool(
        self,
        func: Callable[..., Tensor],
        input: Tensor,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,  # always False: torch has another function for True
    ) -> Any:
        if stride is None or stride == []:  # torch's two ways to say "as the kernel"
            stride = kernel_size
        kernel, step, pad, apart = (
            _per_axis(value, _MAX_POOLS[func]) for value in (kernel_size, stride, padding, dilation)
        )
        max_pool = partial(
            func, kernel_size=kernel, stride=step, padding=pad, dilation=apart, ceil_mode=ceil_mode
        )
        windows = partial(_windows, kernel=kernel, stride=step, padding=pad, dilation=apart)
        return _SoftMaxPool.apply(input, max_pool, windows, self.T)


def _per_axis(value: int | Sequence[int], axes: int) -> list[int]:
    """One number per spatial axis, from torch's "a number, one in a sequence, or one each"."""
    values = [value] if isinstance(value, int) else list(value)
    return values * axes if len(values) == 1 else values
