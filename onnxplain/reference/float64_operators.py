"""Operators of the float64 evaluator, where the reference evaluator's own are slow or not right.

Each takes what ONNX's specification lists, the inputs and then the attributes by name. Windows are
slid over arrays of [N, C, *size]; attributes that ONNX leaves out arrive as None.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx.reference.op_run import OpRun

Array = npt.NDArray[Any]
Ints = Sequence[int]
Pads = list[tuple[int, int]]
"""Per axis, before and after."""


class Operator(OpRun):  # type: ignore[misc]  # onnx has no types
    """An operator of the name of its class."""


def padding(auto_pad: str | None, pads: Ints | None, total: Ints) -> Pads:
    """Of each axis, where `total` is what SAME needs in all."""
    if auto_pad == "SAME_UPPER":
        return [(max(t, 0) // 2, max(t, 0) - max(t, 0) // 2) for t in total]
    if auto_pad == "SAME_LOWER":
        return [(max(t, 0) - max(t, 0) // 2, max(t, 0) // 2) for t in total]
    axes = len(total)
    pads = pads if pads and auto_pad != "VALID" else [0] * 2 * axes
    return list(zip(pads[:axes], pads[axes:], strict=True))


def same(size: Ints, reach: Ints, strides: Ints) -> list[int]:
    """What SAME pads in all: enough for ⌈size / stride⌉ windows."""
    return [(-(-n // s) - 1) * s + r - n for n, r, s in zip(size, reach, strides, strict=True)]


def places(kernel: Ints, strides: Ints, dilations: Ints, out: Ints) -> Iterator[Any]:
    """For each position in a window, where the elements at it are of all windows, from 0 on."""
    for at in itertools.product(*map(range, kernel)):
        yield [
            slice(first := k * d, first + (o - 1) * s + 1, s)
            for k, d, o, s in zip(at, dilations, out, strides, strict=True)
        ]


class Conv(Operator):
    def _run(
        self, X: Array, W: Array, B: Array | None = None, auto_pad: str | None = None,
        dilations: Ints | None = None, group: int | None = None, kernel_shape: Ints | None = None,
        pads: Ints | None = None, strides: Ints | None = None,
    ) -> tuple[Array]:  # fmt: skip
        axes = X.ndim - 2
        strides, dilations = strides or [1] * axes, dilations or [1] * axes
        reach = [(k - 1) * d + 1 for k, d in zip(W.shape[2:], dilations, strict=True)]
        around = padding(auto_pad, pads, same(X.shape[2:], reach, strides))
        x = np.pad(X, [(0, 0), (0, 0), *around])
        out = [(n - r) // s + 1 for n, r, s in zip(x.shape[2:], reach, strides, strict=True)]
        weight = W.reshape(group or 1, len(W) // (group or 1), -1)
        y = np.empty([len(x), len(W), *out], np.result_type(x, W))
        for image, made in zip(x, y, strict=True):
            windows = [image[:, *at] for at in places(W.shape[2:], strides, dilations, out)]
            columns = np.stack(windows, axis=1).reshape(len(weight), weight.shape[2], -1)
            made[...] = (weight @ columns).reshape(made.shape)
        return (y if B is None else y + B.reshape([-1] + [1] * axes),)


class ConvTranspose(Operator):
    def _run(
        self, X: Array, W: Array, B: Array | None = None, auto_pad: str | None = None,
        dilations: Ints | None = None, group: int | None = None, kernel_shape: Ints | None = None,
        output_padding: Ints | None = None, output_shape: Ints | None = None,
        pads: Ints | None = None, strides: Ints | None = None,
    ) -> tuple[Array]:  # fmt: skip
        axes = X.ndim - 2
        strides, dilations = strides or [1] * axes, dilations or [1] * axes
        extra = output_padding or [0] * axes
        size = [
            (n - 1) * s + (k - 1) * d + 1 + e
            for n, s, k, d, e in zip(
                X.shape[2:], strides, W.shape[2:], dilations, extra, strict=True
            )
        ]
        if output_shape:  # it may ask for more than the windows reach
            size = [max(n, w) for n, w in zip(size, output_shape, strict=True)]
        full = np.zeros([len(X), W.shape[1] * (group or 1), *size], X.dtype)
        groups = group or 1
        weight = W.reshape(groups, len(W) // groups, -1).swapaxes(1, 2)
        for image, made in zip(X, full, strict=True):
            columns = weight @ image.reshape(groups, len(W) // groups, -1)
            columns = columns.reshape(len(made), -1, *X.shape[2:])
            spread = places(W.shape[2:], strides, dilations, X.shape[2:])
            for k, at in enumerate(spread):
                made[:, *at] += columns[:, k]
        wanted = output_shape or [n * s for n, s in zip(X.shape[2:], strides, strict=True)]
        if output_shape and auto_pad not in ("SAME_UPPER", "SAME_LOWER"):
            auto_pad = "SAME_LOWER"
        total = [n - w for n, w in zip(size, wanted, strict=True)]
        around = padding(auto_pad, pads, total)
        cut: Any = [slice(b, n - a) for (b, a), n in zip(around, size, strict=True)]
        y = full[..., *cut]
        return (y if B is None else y + B.reshape([-1] + [1] * axes),)


def sliding(
    x: Array, fill: float, kernel: Ints, strides: Ints, dilations: Ints, before: Ints, out: Ints
) -> Array:
    """The windows of x [N, C, *size], stacked in front; `fill` outside."""
    room = [
        b + max((o - 1) * s + (k - 1) * d + 1 - b - n, 0)
        for b, o, s, k, d, n in zip(
            before, out, strides, kernel, dilations, x.shape[2:], strict=True
        )
    ]
    around = [(b, r - b) for b, r in zip(before, room, strict=True)]
    x = np.pad(x, [(0, 0), (0, 0), *around], constant_values=fill)
    return np.stack([x[..., *at] for at in places(kernel, strides, dilations, out)])


def pool_geometry(
    size: Ints,
    kernel: Ints,
    strides: Ints | None,
    dilations: Ints | None,
    pads: Ints | None,
    auto_pad: str | None,
    ceil_mode: int | None,
) -> tuple[Ints, Ints, Pads, list[int]]:
    """Strides, dilations, padding per axis and the output's size."""
    axes = len(kernel)
    strides, dilations = strides or [1] * axes, dilations or [1] * axes
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    around = padding(auto_pad, pads, same(size, reach, strides))
    out = []
    for n, r, s, (b, a) in zip(size, reach, strides, around, strict=True):
        room = n + b + a - r
        count = (-(-room // s) if ceil_mode else room // s) + 1
        if ceil_mode and (count - 1) * s >= n + b:  # it would start in the padding after
            count -= 1
        out.append(count)
    return strides, dilations, around, out


class MaxPool(Operator):
    def _run(
        self, x: Array, auto_pad: str | None = None, ceil_mode: int | None = None,
        dilations: Ints | None = None, kernel_shape: Ints = (), pads: Ints | None = None,
        storage_order: int | None = None, strides: Ints | None = None,
    ) -> tuple[Array, ...]:  # fmt: skip
        strides, dilations, around, out = pool_geometry(
            x.shape[2:], kernel_shape, strides, dilations, pads, auto_pad, ceil_mode
        )
        before = [b for b, _ in around]
        places = kernel_shape, strides, dilations, before, out
        windows = sliding(x, -np.inf, *places)
        if len(self.onnx_node.output) == 1:
            return (windows.max(0),)
        order = list(range(x.ndim)) if not storage_order else [0, 1, *range(2, x.ndim)[::-1]]
        index = np.arange(x.size).reshape([x.shape[i] for i in order]).transpose(np.argsort(order))
        first = windows.argmax(0)[None]
        indices = np.take_along_axis(sliding(index, -1, *places), first, 0)[0]
        return windows.max(0), indices


class AveragePool(Operator):
    def _run(
        self, x: Array, auto_pad: str | None = None, ceil_mode: int | None = None,
        count_include_pad: int | None = None, dilations: Ints | None = None,
        kernel_shape: Ints = (), pads: Ints | None = None, strides: Ints | None = None,
    ) -> tuple[Array]:  # fmt: skip
        strides, dilations, around, out = pool_geometry(
            x.shape[2:], kernel_shape, strides, dilations, pads, auto_pad, ceil_mode
        )
        before = [b for b, _ in around]
        counted = np.ones_like(x)
        if count_include_pad:
            counted = np.pad(counted, [(0, 0), (0, 0), *around], constant_values=1)
        inside = sliding(
            counted, 0, kernel_shape, strides, dilations,
            [0] * len(before) if count_include_pad else before, out,
        ).sum(0)  # fmt: skip
        total = sliding(x, 0, kernel_shape, strides, dilations, before, out).sum(0)
        return (total / inside,)


def sigmoid(x: Array) -> Array:
    """(1 + tanh(x / 2)) / 2: no large number overflows."""
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * x))


def erf(x: Array) -> Array:
    return np.asarray(np.frompyfunc(math.erf, 1, 1)(x)).astype(x.dtype)


class Erf(Operator):
    """The reference evaluator's rounds to float32."""

    def _run(self, x: Array) -> tuple[Array]:
        return (erf(x),)


class Mean(Operator):
    """The reference evaluator's adds in place, to a first operand that may be too small."""

    def _run(self, *xs: Array) -> tuple[Array]:
        return (np.asarray(sum(xs) / len(xs)),)


class GlobalMaxPool(Operator):
    """The reference evaluator's is right for images alone."""

    def _run(self, x: Array) -> tuple[Array]:
        return (x.max(axis=tuple(range(2, x.ndim)), keepdims=True),)


class Sigmoid(Operator):
    """The reference evaluator's warns of large numbers."""

    def _run(self, x: Array) -> tuple[Array]:
        return (sigmoid(x),)


class LRN(Operator):
    """The reference evaluator's takes the batch for the channels."""

    def _run(
        self, x: Array, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0, size: int = 1
    ) -> tuple[Array]:
        sums = [
            (x[:, max(0, c - (size - 1) // 2) : c + size // 2 + 1] ** 2).sum(1)
            for c in range(x.shape[1])
        ]
        return (x / (bias + float(alpha) / size * np.stack(sums, 1)) ** beta,)


class Pad(Operator):
    """The reference evaluator's has no negative pads."""

    def _run(
        self, x: Array, pads: Array, value: Array | None = None, axes: Array | None = None,
        mode: Any = "constant",
    ) -> tuple[Array]:  # fmt: skip
        padded = range(x.ndim) if axes is None else axes
        for axis, before, after in zip(padded, *np.split(pads, 2), strict=True):
            widths = np.zeros([x.ndim, 2], int)
            widths[axis] = max(before, 0), max(after, 0)
            x = x.take(range(max(-before, 0), x.shape[axis] + min(after, 0)), axis)
            filling = {"constant_values": value or 0} if mode == "constant" else {}
            x = np.pad(x, widths, mode=mode, **filling)
        return (x,)


class Gelu(Operator):
    """The reference evaluator's rounds to float32."""

    def _run(self, x: Array, approximate: str = "none") -> tuple[Array]:
        if approximate == "tanh":
            return (x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),)
        return (x * 0.5 * (1 + erf(x / math.sqrt(2))),)


class GroupNormalization(Operator):
    """The reference evaluator's rounds to float32."""

    def _run(
        self, x: Array, scale: Array, bias: Array, epsilon: float = 1e-5, num_groups: int = 1,
        stash_type: int | None = None,
    ) -> tuple[Array]:  # fmt: skip
        in_groups = x.reshape(len(x), num_groups, -1)
        mean, variance = in_groups.mean(2, keepdims=True), in_groups.var(2, keepdims=True)
        y = ((in_groups - mean) / np.sqrt(variance + epsilon)).reshape(x.shape)
        repeats = x.shape[1] // len(scale)
        weight, shift = (v.repeat(repeats).reshape(-1, *[1] * (x.ndim - 2)) for v in (scale, bias))
        return (y * weight + shift,)


class MeanVarianceNormalization(Operator):
    """The reference evaluator's has exponents of float32."""

    def _run(self, x: Array, axes: Ints = (0, 2, 3)) -> tuple[Array]:
        over = tuple(axes)
        return ((x - x.mean(over, keepdims=True)) / (x.std(over, keepdims=True) + 1e-9),)


class GatherElements(Operator):
    """The reference evaluator's wants as many indices as there are elements."""

    def _run(self, x: Array, indices: Array, axis: int = 0) -> tuple[Array]:
        at = np.indices(indices.shape)
        at[axis] = indices
        return (x[tuple(at)],)


class LpNormalization(Operator):
    """The reference evaluator's forgets the sign of what it sums."""

    def _run(self, x: Array, axis: int = -1, p: int = 2) -> tuple[Array]:
        norm = np.linalg.norm(x, p, axis, keepdims=True)
        return (x / np.where(norm == 0, 1, norm),)


class GridSample(Operator):
    """The reference evaluator's is slow, and takes its time over each place: PyTorch's."""

    def _run(
        self, x: Array, grid: Array, align_corners: int | None = None, mode: str = "linear",
        padding_mode: str = "zeros",
    ) -> tuple[Array]:  # fmt: skip
        import torch

        mode = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
        given = torch.from_numpy(x.copy()), torch.from_numpy(grid.copy())
        y = torch.nn.functional.grid_sample(*given, mode, padding_mode, bool(align_corners))
        return (y.numpy(),)


class AffineGrid(Operator):
    """The reference evaluator's rounds to float32: PyTorch's."""

    def _run(self, theta: Array, size: Array, align_corners: int | None = None) -> tuple[Array]:
        import torch

        given = torch.from_numpy(theta.copy())
        y = torch.nn.functional.affine_grid(given, size.tolist(), bool(align_corners))
        return (y.numpy(),)


class LpPool(Operator):
    """The reference evaluator's counts what is not there."""

    def _run(
        self, x: Array, auto_pad: str | None = None, ceil_mode: int | None = None,
        dilations: Ints | None = None, kernel_shape: Ints = (), p: int = 2,
        pads: Ints | None = None, strides: Ints | None = None,
    ) -> tuple[Array]:  # fmt: skip
        strides, dilations, around, out = pool_geometry(
            x.shape[2:], kernel_shape, strides, dilations, pads, auto_pad, ceil_mode
        )
        before = [b for b, _ in around]
        powers = sliding(np.abs(x) ** p, 0, kernel_shape, strides, dilations, before, out)
        return (powers.sum(0) ** (1 / p),)


class GlobalLpPool(Operator):
    def _run(self, x: Array, p: int = 2) -> tuple[Array]:
        axes = tuple(range(2, x.ndim))
        return ((np.abs(x) ** p).sum(axis=axes, keepdims=True) ** (1 / p),)


def directions(
    direction: str, x: Array, y_of: Callable[[int, Array], tuple[Array, ...]]
) -> tuple[Array, ...]:
    """Y [steps, directions, batch, hidden] and the last states, of `y_of(index, x in order)`."""
    orders = {"forward": [1], "reverse": [-1], "bidirectional": [1, -1]}[direction]
    found = [y_of(d, x[::order]) for d, order in enumerate(orders)]
    ys = [y[::order] for (y, *_), order in zip(found, orders, strict=True)]
    return np.stack(ys, 1), *(np.stack(last) for last in zip(*(s for _, *s in found), strict=True))


class LSTM(Operator):
    """The reference evaluator's goes one way only."""

    def _run(
        self, X: Array, W: Array, R: Array, B: Array | None = None, lengths: Array | None = None,
        h0: Array | None = None, c0: Array | None = None, P: Array | None = None,
        direction: str = "forward", hidden_size: int = 0, **_: Any,
    ) -> tuple[Array, ...]:  # fmt: skip
        def run(d: int, x: Array) -> tuple[Array, ...]:
            h, c = (np.zeros([X.shape[1], hidden_size]) if s is None else s[d] for s in (h0, c0))
            ys = []
            for xt in x:
                pre = xt @ W[d].T + h @ R[d].T + (0 if B is None else sum(np.split(B[d], 2)))
                i, o, f, ct = np.split(pre, 4, axis=-1)
                c = sigmoid(f) * c + sigmoid(i) * np.tanh(ct)
                h = sigmoid(o) * np.tanh(c)
                ys.append(h)
            return np.stack(ys), h, c

        return directions(direction, X, run)


class GRU(Operator):
    """The reference evaluator's goes one way only."""

    def _run(
        self, X: Array, W: Array, R: Array, B: Array | None = None, lengths: Array | None = None,
        h0: Array | None = None, direction: str = "forward", hidden_size: int = 0, **_: Any,
    ) -> tuple[Array, ...]:  # fmt: skip
        def run(d: int, x: Array) -> tuple[Array, ...]:
            h = np.zeros([X.shape[1], hidden_size]) if h0 is None else h0[d]
            b_x, b_h = (0, 0) if B is None else np.split(B[d], 2)
            ys = []
            for xt in x:
                zx, rx, nx = np.split(xt @ W[d].T + b_x, 3, axis=-1)
                zh, rh, nh = np.split(h @ R[d].T + b_h, 3, axis=-1)
                z, r = sigmoid(zx + zh), sigmoid(rx + rh)
                h = (1 - z) * np.tanh(nx + r * nh) + z * h
                ys.append(h)
            return np.stack(ys), h

        return directions(direction, X, run)


OPERATORS = [
    Conv, ConvTranspose, MaxPool, AveragePool, GlobalMaxPool, Erf, Mean, Sigmoid, LRN, Pad, Gelu,
    GroupNormalization, MeanVarianceNormalization, GatherElements, LpNormalization, GridSample,
    AffineGrid, LpPool, GlobalLpPool, LSTM, GRU,
]  # fmt: skip
