"""From images to the network's input, and back to what can be looked at."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray
from PIL import Image

from onnxplain.contract.explain import DOWN, NO_IMAGE, Preprocessing
from onnxplain.errors import InputError
from onnxplain.runtime.inputs.each import each
from onnxplain.runtime.inputs.images import load_image

ImageLike: TypeAlias = str | os.PathLike[str] | Image.Image | NDArray[Any]
"""A path; a PIL image; uint8 pixels [H,W], [H,W,1|3|4] or [N,H,W,1|3|4] of any size; or floats
already normalised, [C,H,W] or [N,C,H,W] (channel last where the graph's layout is NHWC)."""


_BRIGHT = 4
"""Times the greatest normalised value: floats that are greater, and none negative, are pixels."""


def as_batch(
    images: ImageLike | Sequence[ImageLike], pre: Preprocessing, dtype: DTypeLike = np.float32
) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Turn images, of one kind or mixed, into what the network takes.

    Floats are taken as they are; everything else goes through `preprocess`.

    Returns:
        The network's input, of `dtype` and in `pre.layout`, and the same cropped photographs for
        display, uint8 [N,H,W,3]; those made of floats are un-normalised and clipped.

    Raises:
        InputError: the file explains no images; no image; an array of another dtype or shape; NaN
            or infinite values; whatever `load_image` and `preprocess` raise.
    """
    if pre == NO_IMAGE:
        raise InputError(
            "this file does not explain images: give its network's inputs by name, to what "
            "onnxplain.load returns"
        )
    items = _items(images)
    parts = [_part(item, pre) for item in items]
    if len({batch.shape[1:] for batch, _ in parts}) > 1:
        raise InputError(_several_sizes(photographs for _, photographs in parts))
    with np.errstate(over="ignore"):
        batch = np.concatenate([batch for batch, _ in parts]).astype(dtype, copy=False)
    if not np.isfinite(batch).all():
        raise InputError("the images have NaN or infinite values")
    return batch, np.concatenate([photographs for _, photographs in parts])


def photographs(images: ImageLike | Sequence[ImageLike]) -> list[Image.Image]:
    """Images, of one kind or mixed, as photographs of mode RGB, of whatever sizes.

    Raises:
        InputError: floats, which are no photograph's; no image; whatever `load_image` raises.
    """
    found = []
    for item in _items(images):
        if isinstance(item, np.ndarray) and item.dtype.kind == "f":
            raise InputError(
                "this file takes a photograph's pixels, uint8, and normalises them itself: floats "
                "are for one exported without preprocess"
            )
        found += [load_image(image) for image in _images(item)]
    return found


def _items(images: ImageLike | Sequence[ImageLike]) -> Sequence[Any]:
    """
    Raises:
        InputError: there is none.
    """
    items = [*each(images)]
    if not items or any(isinstance(item, np.ndarray) and item.size == 0 for item in items):
        raise InputError("no image given")
    return items


def sources(images: Iterable[ImageLike]) -> list[ImageLike | None]:
    """What each of the images that `as_batch` makes of a list is made of; None where that is
    floats."""
    found: list[ImageLike | None] = []
    for item in images:
        if not isinstance(item, np.ndarray):
            found.append(item)
        elif item.dtype.kind == "f":
            found += [None] * (1 if item.ndim == 3 else len(item))
        else:
            found += [item] if item.ndim < 4 else [*item]
    return found


def first_image(source: ImageLike) -> Image.Image:
    """What one of `sources` shows, as `load_image` decodes it."""
    return load_image(_images(source)[0])


def _several_sizes(each: Iterable[NDArray[np.uint8]]) -> str:
    sizes = (f"{photographs.shape[2]} × {photographs.shape[1]}" for photographs in each)
    return (
        f"one call explains images of one size, and these have {', '.join(dict.fromkeys(sizes))} "
        "pixels, which the network takes as they are: explain them one by one, or resize them"
    )


def preprocess(image: Image.Image, pre: Preprocessing) -> NDArray[np.float32]:
    """Resize, fit and normalise an RGB image as torchvision's transforms do.

    For a crop, the shorter side is resized to `pre.resize`, then the centre is taken, with
    `pre.fill` where the image is smaller than that. Where the network takes any
    size, the image keeps its own, as far as it fits. A network of one channel gets the luminance.

    Returns:
        float32 [C,H,W], or [H,W,C] where `pre.layout` is NHWC.

    Raises:
        InputError: the image is so elongated that it would be too large when resized.
    """
    return _normalise(as_photograph(image, pre), pre)


def filled(batch: NDArray[Any], size: int) -> NDArray[Any]:
    """A batch too short for a graph: its last entry again and again, until there are `size`."""
    missing = max(size - len(batch), 0)
    return np.concatenate([batch, batch[-1:].repeat(missing, axis=0)]) if missing else batch


def to_photographs(batch: NDArray[Any], pre: Preprocessing) -> NDArray[np.uint8]:
    """Undo the normalisation of a network's input: uint8 [N,H,W,3], clipped.

    Where there are not three channels, their mean is shown, in grey.
    """
    pixels = batch if pre.layout == "NHWC" else np.moveaxis(batch, 1, -1)
    with np.errstate(invalid="ignore"):
        pixels = pixels * np.array(pre.std) + np.array(pre.mean)
        pixels = pixels if pre.channels == 3 else pixels.mean(-1, keepdims=True)
        pixels = np.rint(255 * pixels).clip(0, 255)
        return np.broadcast_to(pixels, (*pixels.shape[:3], 3)).astype(np.uint8)


def _part(item: ImageLike, pre: Preprocessing) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    if isinstance(item, np.ndarray) and item.dtype.kind == "f":
        batch = _as_given(item, pre)
        return batch, to_photographs(batch, pre)
    crops = [as_photograph(load_image(image), pre) for image in _images(item)]
    if len({photograph.size for photograph in crops}) > 1:
        raise InputError(_several_sizes(np.asarray(photograph)[None] for photograph in crops))
    batch = np.stack([_normalise(photograph, pre) for photograph in crops])
    return batch, np.stack([np.asarray(photograph) for photograph in crops])


def _as_given(array: NDArray[Any], pre: Preprocessing) -> NDArray[Any]:
    batch = array[None] if array.ndim == 3 else array
    if batch.ndim != 4 or not pre.takes(batch.shape[1:]):
        sides = f", its sides {pre.described_sides}" if pre.described_sides else ""
        raise InputError(
            f"normalised floats have the shape [{pre.described_shape}]{sides}, or the same with N "
            f"before it, not {list(array.shape)}; uint8 pixels of any size are resized and "
            "normalised"
        )
    greatest = float(np.max((1 - np.array(pre.mean)) / np.array(pre.std)))
    if batch.size and _BRIGHT * max(greatest, 1) < batch.max() <= 255 and batch.min() >= 0:
        warnings.warn(
            f"the floats are from {batch.min():g} to {batch.max():g}, as pixels are, and are taken "
            f"for normalised, from {float(np.min(-np.array(pre.mean) / np.array(pre.std))):.3g} to "
            f"{greatest:.3g}: give pixels as uint8, which are normalised",
            stacklevel=2,
        )
    return batch


def _images(item: ImageLike) -> Sequence[str | os.PathLike[str] | Image.Image]:
    if isinstance(item, (str, os.PathLike, Image.Image)):
        return [item]
    if item.dtype != np.uint8:
        raise InputError(
            f"an image array holds uint8 pixels or normalised floats, not {item.dtype}"
        )
    pixels = item[..., None] if item.ndim == 2 else item
    pixels = pixels[None] if pixels.ndim == 3 else pixels
    if pixels.ndim != 4 or pixels.shape[-1] not in (1, 3, 4):
        raise InputError(
            "uint8 pixels have the shape [H, W], [H, W, C] or [N, H, W, C] with C = 1, 3 or 4, "
            f"not {list(item.shape)}"
        )
    return [Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image) for image in pixels]


def in_photograph(
    box: tuple[int, int, int, int], size: tuple[int, int], pre: Preprocessing
) -> tuple[int, int, int, int]:
    """Where a box of the network's input lies in the photograph that it was made of.

    Args:
        box: left, top, right, bottom in pixels; the last two are just outside it.
        size: the photograph's width and height.

    Returns:
        The same in the photograph's pixels, rounded outward, within it, and at least one pixel.
    """
    resized, offset = placement(size, pre)
    ends = []
    for axis in (0, 1):
        scale = size[axis] / resized[axis]
        first = math.floor((box[axis] + offset[axis]) * scale)
        last = math.ceil((box[axis + 2] + offset[axis]) * scale)
        first = min(max(first, 0), size[axis] - 1)
        ends.append((first, max(min(last, size[axis]), first + 1)))
    (left, right), (top, bottom) = ends
    return left, top, right, bottom


def box_in_photograph(
    box: NDArray[Any], size: tuple[int, int], pre: Preprocessing
) -> NDArray[np.float64]:
    """A box of the network's input in the pixels of the photograph that it was made of, unrounded.

    Args:
        box: left, top, right and bottom, [..., 4].
        size: the photograph's width and height.
    """
    resized, offset = placement(size, pre)
    scale = np.tile(np.divide(size, resized), 2)
    placed: NDArray[np.float64] = (np.asarray(box, np.float64) + np.tile(offset, 2)) * scale
    return placed


def box_in_input(
    box: NDArray[Any], size: tuple[int, int], pre: Preprocessing
) -> NDArray[np.float64]:
    """The reverse: a photograph's box in pixels of the network's input, cut to what that shows.

    Raises:
        InputError: it is none, lies beyond the photograph, or wholly beyond the network's input.
    """
    (width, height), (left, top, right, bottom) = size, box.tolist()
    said = f"the box {left:g}, {top:g}, {right:g}, {bottom:g}"
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise InputError(
            f"{said} is not left, top, right, bottom within the image of {width} × {height} pixels"
        )
    resized, offset = placement(size, pre)
    placed = box * np.tile(np.divide(resized, size), 2) - np.tile(offset, 2)
    placed = placed.clip(0, pre.cropped(resized) * 2)
    if not (placed[:2] < placed[2:]).all():
        raise InputError(f"{said} lies where the image is cropped: the network does not see it")
    return placed


def as_photograph(image: Image.Image, pre: Preprocessing) -> Image.Image:
    """What a network sees of an image: resized, and cropped.

    Raises:
        InputError: the image is so elongated that it would be too large when resized, or too small
            for the network.
    """
    check_size(image.size, pre)
    (width, height), (left, top) = placement(image.size, pre)
    if width * height > (Image.MAX_IMAGE_PIXELS or np.inf):
        raise InputError(
            f"an image of {image.width} × {image.height} pixels is too elongated: with its shorter "
            f"side resized to {pre.resize} it would have {width} × {height}"
        )
    image = image.resize((width, height), Image.Resampling[pre.interpolation.upper()])
    seen = pre.cropped(image.size)
    if not pre.fill:
        return image.crop((left, top, left + seen[0], top + seen[1]))
    whole = Image.new(image.mode, seen, (pre.fill,) * len(image.getbands()))
    whole.paste(image, (-left, -top))
    return whole


def placement(size: tuple[int, int], pre: Preprocessing) -> tuple[tuple[int, int], tuple[int, int]]:
    """The width and height that an image is resized to, and where the crop begins in that."""
    resized = pre.resized(size)
    surplus = (n - m for n, m in zip(resized, pre.cropped(resized), strict=True))
    left, top = (s // 2 if pre.half == DOWN else crop_offset(s) for s in surplus)
    return resized, (left, top)


def check_size(size: tuple[int, int], pre: Preprocessing) -> None:
    """
    Raises:
        InputError: a photograph of that width and height is too small for a network of any size.
    """
    if not pre.sees(size):
        raise InputError(
            f"the network takes sides of {pre.least} pixels or more, and this image has "
            f"{size[0]} × {size[1]}: enlarge it"
        )


def crop_offset(surplus: int) -> int:
    """Where a centre crop begins, as torchvision rounds it: half to even, but padding toward 0."""
    return round(surplus / 2) if surplus > 0 else int(surplus / 2)


def _normalise(photograph: Image.Image, pre: Preprocessing) -> NDArray[np.float32]:
    if pre.channels not in (1, 3):
        raise InputError(
            f"the network takes images of {pre.channels} channels, which no photograph has: give "
            f"normalised floats of the shape [{pre.described_shape}]"
        )
    image = photograph.convert("L" if pre.channels == 1 else "RGB")
    pixels = np.asarray(image, np.float32) / np.float32(255)
    pixels = pixels.reshape(image.height, image.width, pre.channels)
    pixels -= np.array(pre.mean, np.float32)
    pixels /= np.array(pre.std, np.float32)
    return pixels if pre.layout == "NHWC" else pixels.transpose(2, 0, 1)
