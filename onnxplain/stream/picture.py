"""An explained frame, and a line of text."""

from __future__ import annotations

from dataclasses import replace

from PIL import Image, ImageDraw, ImageFont

from onnxplain.contract.explain import CROP, Preprocessing
from onnxplain.contract.picture import GRID, OVERLAY, PHOTOGRAPH, PictureOptions
from onnxplain.errors import InputError
from onnxplain.runtime import Explanation

OVERLAID = PictureOptions(style=OVERLAY)
"""How a frame is drawn unless it is told otherwise."""


def check_look(look: PictureOptions) -> None:
    """
    Raises:
        InputError: options that are not as declared, do not go together, or are not of a frame.
    """
    look.check()
    if look.style == GRID or look.size != PHOTOGRAPH or look.transparent:
        raise InputError("an explained frame is one opaque picture as large as the frame itself")


def explained_frame(
    image: Image.Image,
    explanation: Explanation,
    pre: Preprocessing,
    look: PictureOptions = OVERLAID,
) -> Image.Image:
    """The whole frame as a picture of its first target.

    Args:
        image: the frame, RGB.
        explanation: that of this frame only.
        pre: how the frame became the network's input.
    """
    if explanation.on_photograph:  # the frame is all that there is
        height, width = explanation.pullback.shape[-2:]
        pre = replace(pre, height=height, width=width, resize=min(height, width), fit=CROP)
    row = replace(explanation.rows()[0], source=image, preprocessing=pre, on_photograph=False)
    look = replace(look, longest=look.longest or max(image.size))
    return row.drawn(0, look, row.canvas(look))[0]


def write_line(image: Image.Image, text: str) -> None:
    """Write a line of text on a dark bar at the lower edge of the picture itself."""
    size = max(12, image.height // 30)
    bar = (0, image.height - round(1.6 * size), image.width, image.height)
    draw = ImageDraw.Draw(image)
    draw.rectangle(bar, fill=(20, 20, 20))
    middle = (bar[1] + bar[3]) / 2
    draw.text((size / 2, middle), text, "white", ImageFont.load_default(size), anchor="lm")
