"""The metrics, declared: what each asks, which of Quantus's it is, and by what arguments."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import InputError

HIGHER, LOWER = "higher", "lower"

IMAGE, GREY, MASKED, MOSAIC, PATCHES, RANDOMISED = (
    *("image", "grey", "masked", "mosaic", "patches", "randomised"),
)
"""What a metric looks at: the image; mid-grey, into which the image is put bit by bit; the image
with the mask of what it shows; a mosaic of it, another of its class and two of others; the image's
patches, each of which is there (1) or not (0: mid-grey); or the image, by the network and by the
same network with its weights shuffled."""

Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class Metric:
    """One of Quantus's metrics, with its arguments.

    Attributes:
        name: as it is asked for.
        quantus: the class's name in `quantus`.
        better: `HIGHER` or `LOWER`.
        asks: what it asks, in a sentence.
        arguments: of the class, for an image of a height and a width; functions by their names in
            `SIMILARITIES`, `quantus.functions.similarity_func` and `LOSSES`.
        on: `IMAGE`, `GREY`, `MASKED`, `MOSAIC`, `PATCHES` or `RANDOMISED`.
        softmax: whether it asks for probabilities, not logits.
        times_image: whether a pullback that is a direction is taken times the image.
        long: whether it is left out where little time is given.
    """

    name: str
    quantus: str
    better: str
    asks: str
    arguments: Callable[[int, int], Arguments] = field(
        default=lambda height, width: MappingProxyType({}), compare=False
    )
    on: str = IMAGE
    softmax: bool = False
    times_image: bool = False
    long: bool = False

    @property
    def arrow(self) -> str:
        """Which way is better."""
        return "↑" if self.better == HIGHER else "↓"

    def described(self, height: int, width: int) -> dict[str, Any]:
        """What determines its scores, besides network, explanation, image and seed."""
        return {
            "quantus": self.quantus,
            "arguments": dict(self.arguments(height, width)),
            "on": self.on,
            "softmax": self.softmax,
            "times_image": self.times_image,
        }

    def made(self, height: int, width: int, classes: int, seed: int) -> Any:
        """Quantus's metric for one image.

        Args:
            classes: of the network.
            seed: for a metric that draws by a seed of its own.

        Raises:
            ModuleNotFoundError: Quantus is not installed.
            InputError: the image's sides do not fit.
        """
        import quantus
        from quantus.functions import similarity_func

        given = dict(self.arguments(height, width))
        if "similarity_func" in given:
            name = given["similarity_func"]
            given["similarity_func"] = SIMILARITIES.get(name) or getattr(similarity_func, name)
        if "loss_func" in given:
            given["loss_func"] = LOSSES[given["loss_func"]]
        if self.quantus == "RandomLogit":
            given |= {"num_classes": classes, "seed": seed}
        return getattr(quantus, self.quantus)(
            **given, return_aggregate=False, disable_warnings=True, display_progressbar=False
        )


def optimal_beta(
    a: NDArray[Any], b: NDArray[Any], batched: bool = False, **_: Any
) -> NDArray[np.float64]:
    """The mean of (a − β b)² by the β that makes it least, Σab / Σb², and 1 where b is 0.

    Yeh et al., arXiv 1901.09392, section 4.1; Captum's `infidelity(normalize=True)`.

    Args:
        a: by how much the logit falls under each perturbation, [n], or [N,n] if `batched`.
        b: what the explanation says, of the same shape.
    """
    of_logit, said = np.asarray(a, np.float64), np.asarray(b, np.float64)
    square = (said * said).sum(-1, keepdims=True)
    beta = (of_logit * said).sum(-1, keepdims=True) / np.where(square == 0, 1, square)
    beta = np.where(square == 0, 1, beta)
    mean: NDArray[np.float64] = ((of_logit - beta * said) ** 2).mean(-1)
    return mean


LOSSES = {"optimal_beta": optimal_beta}


def spearman(
    a: NDArray[Any], b: NDArray[Any], batched: bool = False, **_: Any
) -> NDArray[np.float64]:
    """Quantus's rank correlation of one image's values, [1,n] each; NaN where those of one side are
    all the same or no numbers, with which Quantus 0.6 fails."""
    from quantus.functions.similarity_func import correlation_spearman

    if not min(np.ptp(a), np.ptp(b)) > 0:
        return np.full(len(a), np.nan)
    found: NDArray[np.float64] = correlation_spearman(a, b, batched=batched)
    return found


SIMILARITIES = {"spearman": spearman}
"""In place of Quantus's own."""


def part(height: int, width: int, parts: int) -> int:
    """The side of squares that tile an image, as near as can be to a part of its shorter side.

    Raises:
        InputError: there are no such squares of more than one pixel.
    """
    common = math.gcd(height, width)
    sides = [side for side in range(2, common + 1) if common % side == 0]
    if not sides:
        raise InputError(
            f"patches of this metric must tile the image, and none does one of {width} × {height}"
        )
    wanted = min(height, width) / parts
    return min(sides, key=lambda side: abs(side - wanted))
