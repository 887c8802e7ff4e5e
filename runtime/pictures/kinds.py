"""How each kind of explanation is shown by itself, and read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxplain.contract.explain import DIRECTION, MAGNITUDE, MAP, PRODUCT, RELEVANCE
from onnxplain.runtime.pictures.render import (
    heatmap,
    heatmap_image,
    overlay,
    seismic_colours,
    signed_image,
    white_point,
)

_WHITE = 99.5  # the percentile of full colour

READINGS: Mapping[str, tuple[str, str]] = {
    MAP: ("bright: here", "Bright is where; the photograph shows through where nothing is."),
    DIRECTION: (
        "a colour: more of it here",
        "Mid-grey is 0. A colour says: more of that colour here, and the logit rises.",
    ),
    RELEVANCE: (
        "red: for; blue: against",
        "Red pixels speak for the class, blue ones against it, white ones for neither.",
    ),
    PRODUCT: (
        "red: for; blue: against",
        "Red pixels, as they are, raise the logit, blue ones lower it, white ones do neither.",
    ),
    MAGNITUDE: ("bright: strong", "Bright is where much changes; which way, it does not say."),
}
"""How what a file gives is read, by its kind: below a picture, and on the page."""


def drawn(kind: str, photograph: NDArray[np.uint8], pullback: NDArray[Any]) -> Image.Image:
    """An explanation as its kind is shown.

    Args:
        kind: one of those of `onnxplain.contract.explain`.
        photograph: what the network saw, uint8 [H,W,3].
        pullback: [C,H,W].
    """
    if kind == DIRECTION:
        return signed_image(pullback)
    if kind == MAP:
        low = pullback[0]
        return overlay(photograph, low / (low.max() or 1))
    if kind == MAGNITUDE:
        return heatmap_image(heatmap(pullback))
    mean = pullback.mean(0)
    return Image.fromarray(seismic_colours((mean / white_point(abs(mean), _WHITE)).clip(-1, 1)))
