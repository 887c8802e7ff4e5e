"""The strip under a map that says what its colours stand for."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from onnxplain.contract.colours import palette
from onnxplain.contract.picture import LEVELS, PictureOptions

_INK = "#666666"


def colour_bar(look: PictureOptions, white: float, width: int) -> Image.Image:
    """The colours of a map [.., h, width, 3] from its least to its greatest, with a scale.

    Args:
        white: the magnitude from which on a colour is full.
        width: pixels.
    """
    size = max(11, min(18, width // 24))
    font = ImageFont.load_default(size)
    left, right, high = 0, width - 1, max(6, size // 2)
    strip = Image.new("RGB", (width, 2 * high + round(1.5 * size)), "white")
    at = np.rint(np.linspace(0, LEVELS, width)).astype(int)
    colours = (palette(look)[at] + 0.5).astype(np.uint8)
    strip.paste(Image.fromarray(np.broadcast_to(colours, (high, width, 3))), (left, high))
    draw = ImageDraw.Draw(strip)
    middle = 2 * high + 0.75 * size
    least = f"-{white:.2g}, lowers" if look.has_signs else "0"
    most = f"raises, +{white:.2g}" if look.has_signs else f"{white:.2g} and more"
    draw.text((left, middle), least, _INK, font, anchor="lm")
    draw.text((right, middle), most, _INK, font, anchor="rm")
    if look.has_signs and width > 12 * size:
        draw.text((width / 2, middle), "0", _INK, font, anchor="mm")
    return strip
