"""The arrays of a picture: its colours by level, and what smooths it. `onnxplain.contract.picture`
has the formulas."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnxplain.contract.picture import LEVELS, SIGNS, STRENGTHS, PictureOptions, reach

_DIM, _RISE = 0.8, 0.75  # of an overlay's photograph; the power by which what covers it rises


def palette(look: PictureOptions) -> NDArray[np.float64]:
    """The colour map, [LEVELS + 1, 3] in [0, 255]."""
    maps = SIGNS if look.has_signs else STRENGTHS
    name = look.colours or next(iter(maps))
    return sampled(np.array(maps[name]), LEVELS + 1)


def blend(look: PictureOptions) -> NDArray[np.float64]:
    """An overlay's levels, [LEVELS + 1, 4]: what the photograph's grey is multiplied by, and the
    red, green and blue that are added; a half is in them, for rounding."""
    cover = _cover(look)
    return np.concatenate([_DIM * (1 - cover), cover * palette(look) + 0.5], axis=1)


def levels(look: PictureOptions) -> NDArray[np.float64]:
    """The levels of what lies over nothing, [LEVELS + 1, 3]; of a transparent overlay
    [LEVELS + 1, 4], how much each covers behind its colour; a half is in them."""
    if not look.transparent:
        return palette(look) + 0.5
    return np.concatenate([palette(look), 255 * _cover(look)], axis=1) + 0.5


def _cover(look: PictureOptions) -> NDArray[np.float64]:
    """How much of a photograph each level covers, [LEVELS + 1, 1]."""
    u = np.linspace(0, 1, LEVELS + 1)
    v = np.abs(2 * u - 1) if look.has_signs else u
    return np.asarray(look.alpha * v[:, None] ** _RISE)


def sampled(anchors: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Colours at even steps along the straight lines between anchors [A, 3]: [count, 3]."""
    at, known = np.linspace(0, 1, count), np.linspace(0, 1, len(anchors))
    return np.stack([np.interp(at, known, channel) for channel in anchors.T], axis=-1)


def gaussian(size: int, sigma: float) -> NDArray[np.float64]:
    """The [size, size] matrix that smooths a signal; its rows sum to 1 also at the borders, and are
    0 beyond `reach`."""
    distance = np.arange(1 - size, size)
    bell = np.where(abs(distance) <= reach(sigma), np.exp(-((distance / sigma) ** 2) / 2), 0)
    weights = np.lib.stride_tricks.sliding_window_view(bell, size)[::-1]
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))
