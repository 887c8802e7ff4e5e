"""Pictures from untrusted bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image

from onnxplain.contract.explain import Preprocessing
from onnxplain.errors import InputError
from onnxplain.runtime import load_image
from onnxplain.serve.refusal import too_large

Image.init()
FORMATS: list[str] = [
    name
    for name in ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF")
    if name in Image.OPEN  # not every build of Pillow has all of them
]
"""By Pillow's names. Some of its formats start other programs; none of those is accepted."""


def open_image(data: bytes, most_pixels: int) -> Image.Image:
    """An image file's picture, RGB and upright; its size is checked before it is decoded.

    Raises:
        Refusal: too many pixels.
        InputError: not an image of `FORMATS`, or a damaged one.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise too_large(f"an image has {most_pixels} pixels at most") from None
    except Exception:  # decoders raise all sorts of exceptions on damaged files
        raise InputError(f"this is not an image of {', '.join(FORMATS)}") from None
    with image:
        check_pixels((image.height, image.width), most_pixels)
        return load_image(image)


def check_pixels(size: Sequence[int], most: int) -> None:
    """Raises Refusal if there are more."""
    if size[0] * size[1] > most:
        raise too_large(f"an image has {most} pixels at most, not {size[0] * size[1]}")


def check_resized(size: Sequence[int], pre: Preprocessing, most: int) -> None:
    """Check the size after resizing too: a very flat image would become very wide.

    Raises:
        Refusal: it has more pixels.
    """
    height, width = (pre.resize * side // min(size) for side in size)
    if height * width > most:
        raise too_large(
            f"an image has {most} pixels at most, too, when its shorter side is resized to "
            f"{pre.resize}, not {height * width}"
        )
