"""Pictures from untrusted bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image

from onnxplain.contract.explain import Preprocessing
from onnxplain.errors import InputError
from onnxplain.runtime.inputs.batches import check_size, placement
from onnxplain.runtime.inputs.images import formats, load_image, recognised
from onnxplain.serve.refusal import too_large
from onnxplain.serve.settings import Limits


def open_image(data: bytes, most_pixels: int) -> Image.Image:
    """An image file's picture, RGB and upright; its size is checked before it is decoded.

    Raises:
        Refusal: too many pixels.
        InputError: not an image of `formats()`, or a damaged one.
    """
    try:
        image = recognised(io.BytesIO(data))
    except Image.DecompressionBombError:
        raise too_large(f"an image has {most_pixels} pixels at most") from None
    except Exception:  # decoders raise all sorts of exceptions on damaged files
        raise InputError(f"this is not an image of {', '.join(formats())}") from None
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
    (width, height), _ = placement((size[1], size[0]), pre)
    if height * width > most:
        raise too_large(
            f"an image has {most} pixels at most, too, when it is resized for the network, not "
            f"{height * width}"
        )


def most_in_call(
    size: tuple[int, int], targets: int, pre: Preprocessing, limits: Limits
) -> int | None:
    """How many images of that width and height one call may see of a network that takes any size;
    None of another.

    Args:
        targets: of each image, for each of which the call has a backward pass.

    Raises:
        Refusal: one alone has more pixels than a call may see.
        InputError: it is too small for the network.
    """
    if not pre.any_size:
        return None
    check_size(size, pre)
    width, height = pre.resized(size)
    most = limits.call_pixels // (width * height * targets)
    if not most:
        several, fewer = (
            (f" × {targets} targets", ", or ask for fewer") if targets > 1 else ("", "")
        )
        raise too_large(
            f"this model sees an image at its own size, and {limits.call_pixels} pixels at most, "
            f"not {width} × {height}{several}: send a smaller one{fewer}"
        )
    return most
