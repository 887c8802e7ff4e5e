"""A step of a gradient ascent in pixels, and the parameters of all its steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.contract.explain import Metadata
from onnxplain.errors import InputError

CLIPS = ("each", "last", "none")


@dataclass(frozen=True)
class Climb:
    """The parameters of `onnxplain.accentuate`, as they are called there."""

    steps: int
    alpha: float
    eps: float | None
    clip: str | int
    norm: float
    relative: bool
    normalise: bool
    margin: float
    away: bool

    def check(self, metadata: Metadata) -> None:
        """
        Args:
            metadata: of the file whose pullback is to be climbed along.

        Raises:
            InputError: a parameter out of its range, or a pullback that is no direction.
        """
        if (reason := metadata.no_direction) is not None:
            raise InputError(reason)
        if self.clip not in CLIPS and not (isinstance(self.clip, int) and self.clip >= 1):
            known = ", ".join(CLIPS)
            raise InputError(f"clip is one of {known}, or a number of steps, not '{self.clip}'")
        if self.steps < 1:
            raise InputError(f"steps must be at least 1, not {self.steps}")
        for name, length in (("alpha", self.alpha), ("eps", self.eps)):
            if length is not None and not (math.isfinite(length) and length > 0):
                raise InputError(f"{name} must be a finite number above 0, not {length}")
        if not self.norm >= 1:
            raise InputError(f"norm must be at least 1, not {self.norm}")
        if self.margin and self.clip == "none":
            raise InputError("margin is for pixels that are clipped: leave it out, or clip them")
        if not 0 <= self.margin < math.inf:
            raise InputError(f"margin must be finite and not negative, not {self.margin}")

    @property
    def is_plain(self) -> bool:
        """Whether a step is the one that graphs are exported with."""
        return self.norm == 2 and self.normalise and not (self.relative or self.away)

    @property
    def limit(self) -> float:
        """What pixels are clipped to, either side of 0."""
        return 1 + self.margin

    def clips(self, step: int) -> bool:
        """Whether pixels are clipped after this step, counted from 1."""
        if isinstance(self.clip, int):
            return step % self.clip == 0
        return self.clip == "each" or (self.clip == "last" and step == self.steps)

    def step(
        self, start: NDArray[Any], x: NDArray[Any], g: NDArray[Any], count: int
    ) -> NDArray[Any]:
        """Pixels after the step of that number, from x along g; all are [N,C,H,W]."""
        if self.normalise:
            g = g / _nonzero(_norm(g, self.norm))
        if self.relative:
            g = g * _nonzero(_norm(x, self.norm))
        displacement = x + (-self.alpha if self.away else self.alpha) * g - start
        if self.eps is not None:
            displacement *= self.eps / np.maximum(_norm(displacement, self.norm), self.eps)
        x = start + displacement
        return x.clip(-self.limit, self.limit) if self.clips(count) else x


def _norm(x: NDArray[Any], p: float) -> NDArray[Any]:
    """Each sample's p-norm, [N,1,1,1]; summed in float64, lest a faint gradient become 0."""
    flat = np.abs(x.reshape(len(x), -1), dtype=np.float64)
    return np.linalg.norm(flat, p, axis=1).astype(x.dtype).reshape(-1, 1, 1, 1)


def _nonzero(norm: NDArray[Any]) -> NDArray[Any]:
    return np.where(norm > 0, norm, 1)
