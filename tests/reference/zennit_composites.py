"""The methods of relevance in zennit's terms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import nn
from zennit.canonizers import Canonizer
from zennit.composites import (
    EpsilonAlpha2Beta1Flat,
    EpsilonGammaBox,
    EpsilonPlus,
    EpsilonPlusFlat,
    LayerMapComposite,
    layer_map_base,
)
from zennit.core import Composite
from zennit.rules import Epsilon, Norm, ZPlus
from zennit.types import Linear, MaxPool


class AsAverage(Norm):
    """A max-pool that zennit takes for an average pool: the one rule of VITAL's it has not."""

    def __init__(self) -> None:
        super().__init__(stabilizer=1e-5)

    def copy(self) -> AsAverage:
        return AsAverage()

    def backward(self, module: Any, grad_input: Any, grad_output: Any) -> Any:
        pool = nn.AvgPool2d(module.kernel_size, module.stride, module.padding)
        return super().backward(pool, grad_input, grad_output)


PIXELS = (-2.0, 2.0)
"""The least and the greatest."""

ZENNITS: dict[str, Callable[..., Composite]] = {
    "lrp-epsilon-plus-flat": EpsilonPlusFlat,
    "lrp-epsilon-gamma-box": partial(EpsilonGammaBox, *PIXELS),
    "lrp-epsilon-alpha2-beta1-flat": EpsilonAlpha2Beta1Flat,
}


def composite(method: str, canonizers: Sequence[Canonizer] = ()) -> Composite:
    if method in ZENNITS:
        return ZENNITS[method](canonizers=list(canonizers))
    if method == "epsilon-plus":
        return EpsilonPlus(canonizers=list(canonizers))
    if method == "lrp-epsilon":
        layers = [*layer_map_base(), (Linear, Epsilon())]
    else:
        plus = ZPlus(stabilizer=1e-5, zero_params="bias")
        layers = [(MaxPool, AsAverage()), *layer_map_base(1e-5), (Linear, plus)]
    return LayerMapComposite(layers, canonizers=list(canonizers))
