"""Boxes and regions drawn over a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

_INNER, _OUTER = (255, 255, 255), (0, 0, 0)


def outlined(
    picture: Image.Image,
    boxes: Sequence[NDArray[Any]] | NDArray[Any] = (),
    region: NDArray[Any] | None = None,
) -> Image.Image:
    """A copy with white outlines on black.

    Args:
        boxes: left, top, right and bottom of each, in the picture's pixels.
        region: float [h, w] of the picture's proportions, positive inside.
    """
    if not len(boxes) and region is None:
        return picture
    marked = picture.convert("RGB")
    if region is not None:
        marked = _around(marked, region)
    pen = ImageDraw.Draw(marked)
    for box in boxes:
        left, top, right, bottom = (float(side) for side in box)
        if not np.isfinite(box).all() or right <= left or bottom <= top:
            continue
        pen.rectangle([left - 1, top - 1, right + 1, bottom + 1], outline=_OUTER)
        pen.rectangle([left, top, right, bottom], outline=_INNER)
    return marked


def _around(picture: Image.Image, region: NDArray[Any]) -> Image.Image:
    mask = Image.fromarray((255 * (region > 0)).astype(np.uint8)).resize(
        picture.size, Image.Resampling.NEAREST
    )
    inside = np.asarray(mask) > 0
    padded = np.pad(inside, 1, mode="edge")
    neighbours = [
        padded[1 + dy : padded.shape[0] - 1 + dy, 1 + dx : padded.shape[1] - 1 + dx]
        for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0))
    ]
    pixels = np.array(picture)
    pixels[~inside & np.any(neighbours, axis=0)] = _OUTER
    pixels[inside & ~np.all(neighbours, axis=0)] = _INNER
    return Image.fromarray(pixels)
