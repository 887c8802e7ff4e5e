"""2 × 2 max-pooling that remembers places, and its inverse: PyTorch's own, and a portable form.

ONNX has `MaxUnpool`, but TensorRT and OpenVINO do not run it, and TensorRT's MaxPool gives no
indices. The portable form needs none: comparisons within a window find its maximum, and their
outcomes say where it was. Values return by these outcomes, and DepthToSpace interleaves the four
places of all windows. The result is exact, ties included: as in PyTorch, the first place in
row-major order wins. That matters, because after a ReLU most windows that tie are all zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Places(NamedTuple):
    """For each window, bool [N, C, h, w]: whether the maximum is in the upper row, and for each row
    whether its maximum is on the left."""

    upper: Tensor
    upper_left: Tensor
    lower_left: Tensor


def pool(x: Tensor) -> tuple[Tensor, Places]:
    """[N, C, 2h, 2w] → the maxima [N, C, h, w] and their places."""
    a, b, c, d = (x[..., i::2, j::2] for i in (0, 1) for j in (0, 1))
    upper, lower = torch.maximum(a, b), torch.maximum(c, d)
    return torch.maximum(upper, lower), Places(upper >= lower, a >= b, c >= d)


def unpool(y: Tensor, places: Places) -> Tensor:
    """[N, C, h, w] → [N, C, 2h, 2w], zero except in the places."""
    upper, lower = torch.where(places.upper, y, 0.0), torch.where(places.upper, 0.0, y)
    phases = [
        torch.where(places.upper_left, upper, 0.0),
        torch.where(places.upper_left, 0.0, upper),
        torch.where(places.lower_left, lower, 0.0),
        torch.where(places.lower_left, 0.0, lower),
    ]
    return functional.pixel_shuffle(torch.stack(phases, 2).flatten(1, 2), 2)


def _native_pool(x: Tensor) -> tuple[Tensor, Tensor]:
    return functional.max_pool2d(x, 2, 2, return_indices=True)


def _native_unpool(y: Tensor, indices: Tensor) -> Tensor:
    return functional.max_unpool2d(y, indices, [2, 2], [2, 2])


Pair = tuple[Callable[[Tensor], tuple[Tensor, Any]], Callable[[Tensor, Any], Tensor]]

NATIVE: Pair = (_native_pool, _native_unpool)
PORTABLE: Pair = (pool, unpool)
