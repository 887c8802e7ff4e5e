"""What pictures are drawn on: the whole photograph, or what the network saw of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxplain.contract.explain import Preprocessing
from onnxplain.runtime.inputs.batches import placement

_LEAST, _MOST = 192, 1024  # pixels of the shorter and the longer side of what is enlarged


@dataclass(frozen=True, eq=False)
class Axis:
    """Where the places along an axis of a picture lie along the network's input.

    Attributes:
        near, far: the two entries of the input between which each place lies.
        parts: what the two weigh, [2, size]; 0 beyond the input.
        offset, scale: x of the input is (x + offset) · scale of the picture.
    """

    near: NDArray[np.intp]
    far: NDArray[np.intp]
    parts: NDArray[np.float32]
    offset: float
    scale: float

    @classmethod
    def repeated(cls, count: int, factor: int) -> Axis:
        """Each entry `factor` times."""
        at = np.arange(count * factor) // factor
        parts = np.stack([np.ones(len(at), np.float32), np.zeros(len(at), np.float32)])
        return cls(at, at, parts, 0, factor)

    @classmethod
    def of_part(cls, size: int, count: int, resized: int, offset: int) -> Axis:
        """Linearly between the centres of those of `count` entries that show the photograph, the
        first of them `offset` behind the first of the `resized`."""
        whole, part = np.divmod((2 * np.arange(size) + 1) * resized, 2 * size)
        inside = (whole >= offset) & (whole < offset + count)
        at = whole - offset + part / (2 * size) - 0.5
        at = at.clip(max(-offset, 0), min(resized - offset, count) - 1)
        near = np.floor(at).astype(np.intp)
        beyond = at - near
        parts = (np.stack([1 - beyond, beyond]) * inside).astype(np.float32)
        return cls(near, np.minimum(near + 1, count - 1), parts, offset, size / resized)

    def along(self, values: NDArray[Any], axis: int) -> NDArray[Any]:
        """Values of the input at the places of the picture."""
        shape = [-1] + [1] * (-1 - axis)
        near, far = (part.reshape(shape) for part in self.parts)
        placed: NDArray[Any] = values.take(self.near, axis) * near
        if far.any():
            placed += values.take(self.far, axis) * far
        return placed


@dataclass(frozen=True, eq=False)
class Canvas:
    """A photograph [h,w,3], and where the network's input lies in it."""

    photograph: NDArray[np.uint8]
    rows: Axis
    columns: Axis

    @classmethod
    def of_network(cls, seen: NDArray[np.uint8]) -> Canvas:
        """What the network saw, [H,W,3]; where it is small, each pixel as a square of several."""
        height, width = seen.shape[:2]
        factor = max(1, min(math.ceil(_LEAST / min(height, width)), _MOST // max(height, width)))
        rows, columns = Axis.repeated(height, factor), Axis.repeated(width, factor)
        return cls(seen[rows.near][:, columns.near], rows, columns)

    @classmethod
    def of_photograph(
        cls, whole: Image.Image, seen: tuple[int, int], pre: Preprocessing, longest: int
    ) -> Canvas:
        """The whole photograph, of `longest` pixels a side at most; small ones are enlarged.

        Args:
            whole: of mode RGB.
            seen: height and width of what the network saw of it.
        """
        return cls._placed(whole, seen, *placement(whole.size, pre), longest)

    @classmethod
    def of_whole(cls, photograph: NDArray[np.uint8], longest: int) -> Canvas:
        """The same of a photograph [h,w,3] of each of whose pixels there are values."""
        height, width = photograph.shape[:2]
        whole = Image.fromarray(photograph)
        return cls._placed(whole, (height, width), whole.size, (0, 0), longest)

    @classmethod
    def _placed(
        cls,
        whole: Image.Image,
        seen: tuple[int, int],
        resized: tuple[int, int],
        offset: tuple[int, int],
        longest: int,
    ) -> Canvas:
        (wide, high), (left, top) = resized, offset
        width, height = size_drawn(whole.size, longest)
        rows = Axis.of_part(height, seen[0], high, top)
        columns = Axis.of_part(width, seen[1], wide, left)
        shown = whole
        if (width, height) != whole.size:
            shown = whole.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)
        return cls(np.asarray(shown), rows, columns)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return len(self.rows.near), len(self.columns.near)

    def placed(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Values [...,H,W] of the network's input as [...,h,w], linearly between; 0 beyond it."""
        values = self.columns.along(np.asarray(values, np.float32), -1)
        placed: NDArray[np.float32] = self.rows.along(values, -2)
        return placed

    def boxes(self, boxes: NDArray[Any]) -> NDArray[np.float64]:
        """Boxes [...,4] of the network's input in pixels of the picture."""
        offset = np.tile([self.columns.offset, self.rows.offset], 2)
        scale = np.tile([self.columns.scale, self.rows.scale], 2)
        placed: NDArray[np.float64] = (np.asarray(boxes, np.float64) + offset) * scale
        return placed

    def inside(self, region: NDArray[Any], height: int, width: int) -> NDArray[np.bool_]:
        """A region [h',w'], positive inside, of the proportions of the network's input."""
        rows, columns = region.shape
        at = np.ix_(_nearest(height, rows), _nearest(width, columns))
        inside: NDArray[np.bool_] = self.placed(region[at] > 0) >= 0.5
        return inside


def region_in_photograph(
    region: NDArray[Any], size: tuple[int, int], pre: Preprocessing
) -> NDArray[np.bool_]:
    """A region [h',w'] of what the network saw, as one [h,w] of the photograph of that width and
    height."""
    (wide, high), (left, top) = placement(size, pre)
    rows = Axis.of_part(size[1], pre.height, high, top)
    columns = Axis.of_part(size[0], pre.width, wide, left)
    canvas = Canvas(np.zeros((0, 0, 3), np.uint8), rows, columns)
    return canvas.inside(region, pre.height, pre.width)


def size_drawn(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """Width and height at which a photograph of that width and height is drawn, of `longest` pixels
    a side at most."""
    wanted = min(math.ceil(_LEAST / min(size)), _MOST / max(size))
    factor = min(max(1, wanted), longest / max(size))
    width, height = (max(1, round(factor * side)) for side in size)
    return width, height


def _nearest(size: int, count: int) -> NDArray[np.intp]:
    return np.asarray(np.floor((np.arange(size) + 0.5) * count / size), np.intp)
