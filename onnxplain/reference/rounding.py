"""How far rounding alone may move a right answer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from onnxplain.reference.parity import Parity

if TYPE_CHECKING:
    from torch import nn

Array = npt.NDArray[Any]

ROUNDINGS, HALF_ULP = 4, 2.0**-24


def moved_by_rounding(
    pullback_of: Callable[[nn.Module], Array], module: nn.Module, reference: Array
) -> float:
    """How far the float64 reference itself moves when float32 rounds the weights once more.

    A file of float32 weights, batch norms folded, can be no nearer to the reference than that: of a
    gate that opens between two neighbouring weights, no float32 network says which is right.

    Returns:
        The largest relative L2 of a few draws, each weight moved by up to half a float32 ulp.
    """
    import torch

    torch.manual_seed(0)
    moved = []
    for _ in range(ROUNDINGS):
        rounded = copy.deepcopy(module).double()
        with torch.no_grad():
            for weight in rounded.parameters():
                weight.mul_(1 + (2 * torch.rand_like(weight) - 1) * HALF_ULP)
        moved.append(Parity.of(pullback_of(rounded), reference).relative_l2)
    return max(moved)
