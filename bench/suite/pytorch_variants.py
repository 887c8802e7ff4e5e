"""The excitation pullback in PyTorch, as people would run it fast: what explain graphs are timed
against.

The network is traced by `torch.fx`, its ReLUs and max-pools become autograd functions, and what
comes out is an ordinary module: eager, compiled, in another memory layout or precision, or
recorded as a CUDA graph. (`onnxplain.reference` is for parity: it takes any network, and is
slower.)
"""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from onnxplain.errors import InputError

Explain = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(images [N, C, H, W], targets int64 [N]) → logits [N, classes], pullback [N, C, H, W]."""


class ExcitedReLU(torch.autograd.Function):
    """Forward min(max(z, 0), top); backward g · σ(z / T)."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, top: float, T: float) -> Tensor:
        ctx.save_for_backward(z)
        ctx.T = T
        return z.clamp(0, top)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        (z,) = ctx.saved_tensors
        return g * torch.sigmoid(z / ctx.T), None, None


class ExcitedMaxPool(torch.autograd.Function):
    """Forward the max-pool; backward the gradient of Σ x_i w_i, w = softmax(x / T) per window."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, window: tuple[int, int, int], T: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.window, ctx.T = window, T
        kernel, stride, padding = window
        return functional.max_pool2d(x, kernel, stride, padding)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        (x,), (kernel, stride, padding), T = ctx.saved_tensors, ctx.window, ctx.T
        n, c, *size = x.shape
        how = {"kernel_size": kernel, "stride": stride, "padding": padding}
        u = functional.unfold(x, **how).view(n, c, kernel * kernel, -1)
        w = torch.softmax(u / T, dim=2)
        s = (u * w).sum(dim=2, keepdim=True)
        gu = g.reshape(n, c, 1, -1) * w * (1 + (u - s) / T)
        return functional.fold(gu.view(n, -1, gu.shape[-1]), size, **how), None, None


def excited_relu(z: Tensor, top: float, T: float) -> Tensor:
    return ExcitedReLU.apply(z, top, T)


def excited_max_pool(x: Tensor, window: tuple[int, int, int], T: float) -> Tensor:
    return ExcitedMaxPool.apply(x, window, T)


def excited(module: nn.Module, T: float) -> fx.GraphModule:
    """A copy of a network whose backward pass is the excitation pullback.

    Raises:
        InputError: `torch.fx` cannot trace it, or it has a max-pool other than a plain square one.
    """
    try:
        traced = fx.symbolic_trace(copy.deepcopy(module).eval())
    except Exception as error:
        raise InputError(f"torch.fx cannot trace {type(module).__name__}: {error}") from error
    modules = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        target = modules[node.target] if node.op == "call_module" else node.target
        if isinstance(target, nn.ReLU) or target in (functional.relu, torch.relu, "relu", "relu_"):
            call: tuple[Any, ...] = (excited_relu, (node.args[0], math.inf, T))
        elif isinstance(target, nn.ReLU6) or target is functional.relu6:
            call = (excited_relu, (node.args[0], 6.0, T))
        elif isinstance(target, nn.MaxPool2d):
            call = (excited_max_pool, (node.args[0], _window(target), T))
        else:
            continue
        with traced.graph.inserting_after(node):
            replacement = traced.graph.call_function(*call)
        node.replace_all_uses_with(replacement)
        traced.graph.erase_node(node)
    traced.recompile()
    traced.requires_grad_(False)  # or a compiled backward computes the weights' gradients too
    return traced


def _window(pool: nn.MaxPool2d) -> tuple[int, int, int]:
    window = (pool.kernel_size, pool.stride, pool.padding)
    if pool.dilation != 1 or pool.ceil_mode or not all(isinstance(size, int) for size in window):
        raise InputError(f"{pool} is not a plain square max-pool")
    kernel, stride, padding = map(operator.index, window)  # type: ignore[arg-type]
    return kernel, stride, padding


def explainer(forward: Callable[[Tensor], Tensor]) -> Explain:
    """Forward and backward pass of a module from `excited`, as it is or compiled."""

    def explain(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        leaf = images.detach().requires_grad_()
        logits = forward(leaf)
        # In evaluation mode no image sees another: one sweep over the sum explains each.
        (pullback,) = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), leaf)
        return logits.detach(), pullback

    return explain


def autocast(explain: Explain, dtype: torch.dtype) -> Explain:
    """The forward pass, and with it the backward, in half precision where autocast allows it."""

    def half(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(images.device.type, dtype):
            return explain(images, targets)

    return half


def variants(device: str) -> dict[str, Callable[[nn.Module, float], Explain]]:
    """The variants by name: each makes of a module on the device, and of T, what explains.

    Compiled ones compile on their first call, which takes up to a minute.
    """
    half = torch.float16 if device == "cuda" else torch.bfloat16
    name = str(half).removeprefix("torch.")

    def last(module: nn.Module, T: float) -> fx.GraphModule:
        return excited(module, T).to(memory_format=torch.channels_last)

    return {
        "eager": lambda m, T: explainer(excited(m, T)),
        "channels-last": lambda m, T: channels_last(explainer(last(m, T))),
        f"channels-last, {name} autocast": lambda m, T: channels_last(
            autocast(explainer(last(m, T)), half)
        ),
        "compile": lambda m, T: explainer(torch.compile(excited(m, T))),
        f"compile, channels-last, {name} autocast": lambda m, T: channels_last(
            autocast(explainer(torch.compile(last(m, T))), half)
        ),
    }


def channels_last(explain: Explain) -> Explain:
    return lambda x, t: explain(x.contiguous(memory_format=torch.channels_last), t)


def recorded(explain: Explain, images: Tensor, targets: Tensor) -> Explain:
    """The same as a CUDA graph, for inputs of these shapes on the GPU."""
    given, classes = images.clone(), targets.clone()
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            explain(given, classes)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = explain(given, classes)

    def replay(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        given.copy_(images)
        classes.copy_(targets)
        graph.replay()
        return outputs

    return replay
