"""What each step of an optimisation is given: its learning rate, its shift and its mirroring."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnxplain.vital.settings import Settings


def rates(settings: Settings) -> NDArray[np.float32]:
    """The learning rate of each step, [T]: a linear warm-up, then a cosine down to 0."""
    step = np.arange(settings.steps)
    warm = min(settings.warm_up, settings.steps // 20)
    rising = (step + 1) / max(warm, 1)
    falling = 0.5 * (1 + np.cos(np.pi * (step - warm) / max(settings.steps - warm, 1)))
    return (settings.rate * np.where(step < warm, rising, falling)).astype(np.float32)


def shifts(settings: Settings) -> NDArray[np.int64]:
    """By how much each step rolls the picture, down and to the right, [T, 2]."""
    random = np.random.default_rng([settings.seed, 1])
    return random.integers(-settings.roll, settings.roll + 1, (settings.steps, 2))


def mirrored(settings: Settings) -> NDArray[np.int64]:
    """Which steps see the picture mirrored, 1 or 0, [T]."""
    random = np.random.default_rng([settings.seed, 2])
    return random.integers(0, 2, settings.steps) * int(settings.mirror)
