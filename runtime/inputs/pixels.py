"""Photographs as a file takes them that does its own preprocessing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxplain.contract.explain import Metadata, Preprocessing
from onnxplain.contract.picture import PICTURE
from onnxplain.contract.pixels import (
    BGR,
    BGR_PLANAR,
    GRAY,
    NV12,
    PHOTOGRAPH,
    RGB_PLANAR,
    Pixels,
)
from onnxplain.errors import InputError
from onnxplain.runtime.inputs.batches import (
    ImageLike,
    as_batch,
    as_photograph,
    check_size,
    photographs,
)
from onnxplain.runtime.inputs.frames import photograph_of
from onnxplain.runtime.signature import Signature

Batch: TypeAlias = "NDArray[Any] | list[NDArray[Any]]"
"""What a graph takes as `image`, [N, …]; of photographs of several sizes, a list of N."""


def as_input(
    images: ImageLike | Sequence[ImageLike], signature: Signature
) -> tuple[Batch, NDArray[np.uint8]]:
    """Turn images, of one kind or mixed, into what a file takes.

    Returns:
        The graph's input; and what it shows, uint8 [N,H,W,3]: as the network sees it, or whole
        where the pullback has that geometry.

    Raises:
        InputError: as `as_batch`; floats for a file that takes photographs; photographs of several
            sizes for one whose pullback or picture has their size; ones too small for the file's
            pixels.
    """
    pre, pixels = signature.metadata.preprocessing, signature.metadata.pixels
    if not pixels:
        return as_batch(images, pre, signature.dtype)
    frames = [frame(photograph, pixels) for photograph in photographs(images)]
    sizes = {one.shape for one in frames}
    drawn = signature.outputs.get(PICTURE)
    if len(sizes) > 1 and (
        pre.any_size
        or pixels.geometry == PHOTOGRAPH
        or (drawn is not None and None in drawn.shape[-3:-1])
    ):
        raise InputError(
            "what this file puts out has each photograph's size: explain those of one size "
            f"together, and not of {len(sizes)}"
        )
    return stacked_frames(frames), np.stack([view(one, signature.metadata) for one in frames])


def view(frame: NDArray[np.uint8], metadata: Metadata) -> NDArray[np.uint8]:
    """What a frame shows, uint8 [H,W,3]: as the network sees it, or whole where the pullback has
    that geometry.

    Raises:
        InputError: as `as_photograph`.
    """
    shown = photograph_of(frame, metadata.pixels)
    check_size((shown.shape[1], shown.shape[0]), metadata.preprocessing)
    if metadata.pixels.geometry == PHOTOGRAPH:
        return shown
    whole = Image.fromarray(np.ascontiguousarray(shown))
    return np.asarray(as_photograph(whole, metadata.preprocessing))


def stacked_frames(frames: Sequence[NDArray[Any]]) -> Batch:
    """Frames of one size as one array."""
    return np.stack(frames) if len({one.shape for one in frames}) == 1 else list(frames)


def frame(photograph: Image.Image, pixels: Pixels) -> NDArray[np.uint8]:
    """A photograph as a camera would deliver it; of NV12 an odd last row and column are left out.

    Raises:
        InputError: of NV12, it has not two rows and two columns.
    """
    if pixels.format == GRAY:
        return np.asarray(photograph.convert("L"))
    found = np.asarray(photograph)
    if pixels.format == NV12:
        return _nv12(found)
    if pixels.format in (BGR, BGR_PLANAR):
        found = found[..., ::-1]
    if pixels.format in (RGB_PLANAR, BGR_PLANAR):
        found = found.transpose(2, 0, 1)
    return np.ascontiguousarray(found)


def _nv12(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """ITU-R BT.601 of limited range, the chroma of two by two pixels their mean's."""
    width, height = Pixels(NV12).held((rgb.shape[1], rgb.shape[0]))
    if not height or not width:
        raise InputError(
            "NV12 holds colours for two by two pixels, and the image has "
            f"{rgb.shape[1]} × {rgb.shape[0]}"
        )
    pixels = rgb[:height, :width].astype(np.float32)
    luma = 16 + pixels @ np.array([65.481, 128.553, 24.966], np.float32) / 255
    weights = np.array([[-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]], np.float32)
    fours = pixels.reshape(height // 2, 2, width // 2, 2, 3).mean((1, 3))
    chroma = 128 + fours @ weights.T / 255
    frame = np.concatenate([luma, chroma.reshape(height // 2, width)])
    return np.rint(frame).clip(0, 255).astype(np.uint8)


def noise_photographs(pre: Preprocessing, count: int) -> NDArray[np.uint8]:
    """Seeded noise of a size that is resized and cropped, [N,h,w,3]."""
    height, width = (2 * (5 * side // 8 + 1) for side in (pre.height, pre.width))
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def noise_frames(pre: Preprocessing, pixels: Pixels, count: int) -> NDArray[np.uint8]:
    """The same as a camera would deliver it, [N, …]."""
    return np.stack([frame(Image.fromarray(one), pixels) for one in noise_photographs(pre, count)])
