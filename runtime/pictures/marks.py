"""Boxes and regions drawn over a picture: white lines with black borders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxplain.contract.picture import line_width

_INNER, _OUTER = (255, 255, 255, 255), (0, 0, 0, 255)


def outlined(
    picture: Image.Image,
    boxes: Sequence[NDArray[Any]] | NDArray[Any] = (),
    region: NDArray[np.bool_] | None = None,
) -> Image.Image:
    """A copy with outlines.

    A box's white line begins at its borders, which are rounded down, and goes inward, its black one
    outward. Along a region's border the last pixels within are white, the first beyond black.

    Args:
        picture: RGB or RGBA.
        boxes: left, top, right and bottom of each, in the picture's pixels.
        region: [h, w], true inside.
    """
    if not len(boxes) and region is None:
        return picture
    pixels = np.array(picture)
    if region is not None:
        _around(pixels, region)
    height, width, channels = pixels.shape
    thick = line_width(height, width)
    for box in boxes:
        left, top, right, bottom = map(float, box)
        if not np.isfinite(box).all() or right <= left or bottom <= top:
            continue
        left, top, right, bottom = np.floor([left, top, right, bottom])
        across = np.minimum(np.arange(width) - left, right - np.arange(width))
        down = np.minimum(np.arange(height) - top, bottom - np.arange(height))
        depth = np.minimum(down[:, None], across)  # below 0 outside
        pixels[(depth >= 0) & (depth < thick)] = _INNER[:channels]
        pixels[(depth < 0) & (depth >= -thick)] = _OUTER[:channels]
    return Image.fromarray(pixels)


def _around(pixels: NDArray[np.uint8], inside: NDArray[np.bool_]) -> None:
    padded = np.pad(inside, 1, mode="edge")
    neighbours = [
        padded[1 + dy : padded.shape[0] - 1 + dy, 1 + dx : padded.shape[1] - 1 + dx]
        for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0))
    ]
    channels = pixels.shape[2]
    pixels[~inside & np.any(neighbours, axis=0)] = _OUTER[:channels]
    pixels[inside & ~np.all(neighbours, axis=0)] = _INNER[:channels]
