"""Frames as cameras deliver them: from their bytes, and as the photographs that they show."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnxplain.contract.pixels import BGR, BGR_PLANAR, GRAY, NV12, Pixels
from onnxplain.errors import InputError


def frame_shape(pixels: Pixels, width: int, height: int) -> list[int]:
    """That of one frame.

    Raises:
        InputError: of NV12, an odd side.
    """
    if pixels.format == NV12 and (width % 2 or height % 2):
        raise InputError(
            f"NV12 holds colours for two by two pixels, and {width} × {height} is not even"
        )
    rows = height // 2 * 3 if pixels.format == NV12 else height
    open_sizes = iter((rows, width))
    return [next(open_sizes) if size is None else size for size in pixels.shape]


def frame_of(data: bytes, pixels: Pixels, width: int, height: int) -> NDArray[np.uint8]:
    """A frame out of its bytes, without padding between rows.

    Raises:
        InputError: there are more or fewer bytes than a frame of that size has; of NV12, an odd
            side.
    """
    shape = frame_shape(pixels, width, height)
    if len(data) != math.prod(shape):
        raise InputError(
            f"a frame of {pixels.format} with {width} × {height} pixels has {math.prod(shape)} "
            f"bytes, not {len(data)}"
        )
    return np.frombuffer(data, np.uint8).reshape(shape)


def size_of_frame(shape: Sequence[int], pixels: Pixels) -> tuple[int, int]:
    """The width and height in pixels of a frame, or of a batch of them.

    Raises:
        InputError: of NV12, that is no frame's shape.
    """
    height, width = (shape[axis - 1 - len(pixels.shape)] for axis in pixels.axes)
    if pixels.format != NV12:
        return width, height
    if height % 3 or width % 2:
        raise InputError(
            "a frame of NV12 has rows for half as many pixels again as it is high, and an even "
            f"width: not {height} rows of {width}"
        )
    return width, height // 3 * 2


def photograph_of(frame: NDArray[np.uint8], pixels: Pixels) -> NDArray[np.uint8]:
    """What a frame shows: uint8 [h,w,3] in red, green and blue, a view of it where possible."""
    if pixels.format == GRAY:
        return np.broadcast_to(frame[..., None], (*frame.shape, 3))
    if pixels.format == NV12:
        return _of_nv12(frame)
    if pixels.axes == (2, 3):
        frame = np.moveaxis(frame, 0, -1)
    return frame[..., ::-1] if pixels.format in (BGR, BGR_PLANAR) else frame


_FROM_CHROMA = np.array([[0, 1673527], [-409993, -852492], [2116026, 0]])
"""Of red, green and blue by U and V, in 2²⁰: ITU-R BT.601 of limited range."""


def _of_nv12(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """In whole numbers, as OpenCV's COLOR_YUV2RGB_NV12 and the graph itself."""
    height, width = frame.shape[0] // 3 * 2, frame.shape[1]
    chroma = frame[height:].reshape(height // 2, width // 2, 2).astype(np.int32) - 128
    colour = (chroma @ _FROM_CHROMA.T.astype(np.int32)).repeat(2, axis=0).repeat(2, axis=1)
    light = 1220542 * np.maximum(frame[:height].astype(np.int32) - 16, 0)
    rgb = (light[..., None] + colour + (1 << 19)) >> 20
    return rgb.clip(0, 255).astype(np.uint8)
