"""One picture of many explained images, and how a picture becomes a file."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxplain.errors import InputError
from onnxplain.files import replacing
from onnxplain.runtime.pictures.marks import outlined
from onnxplain.runtime.pictures.render import (
    Cell,
    grid,
    heatmap,
    heatmap_image,
    mosaic,
    overlay,
    seismic_image,
    signed_image,
)

# A pullback's colours change from pixel to pixel: coarse chroma would wash them out.
_FINE: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95},
}


@dataclass(frozen=True, eq=False)
class Row:
    """What a figure shows of one image, explained for K targets.

    Attributes:
        photograph: uint8 [H,W,3].
        pullbacks: [K,C,H,W].
        predictions: the likeliest classes as (name, probability), the likeliest first.
        targets: the K targets as (name, probability); or (name, objective) of no classifier.
        probable: whether those numbers are probabilities.
        boxes: of the K targets, [K,4] in pixels of the photograph, or None.
        region: what the objective looks at, float [h,w], or None.
    """

    photograph: NDArray[np.uint8]
    pullbacks: NDArray[Any]
    predictions: Sequence[tuple[str, float]]
    targets: Sequence[tuple[str, float]]
    probable: bool = True
    boxes: NDArray[Any] | None = None
    region: NDArray[Any] | None = None

    @functools.cached_property
    def heatmaps(self) -> NDArray[np.float32]:
        """[K,H,W] in [0, 1]."""
        return heatmap(self.pullbacks)

    def number(self, value: float) -> str:
        """A target's number as text."""
        return f"{value:.1%}" if self.probable else f"{value:.4g}"

    def marked(self, picture: Image.Image, k: int | None = None) -> Image.Image:
        """A picture with the outline of the region, and the box of target k or of all targets."""
        chosen = slice(None) if k is None else slice(k, k + 1)
        boxes = () if self.boxes is None else self.boxes[chosen]
        return outlined(picture, boxes, self.region)


_PICTURES: dict[str, Callable[[Row, int], Image.Image]] = {
    "pullback": lambda row, k: signed_image(row.pullbacks[k]),
    "seismic": lambda row, k: seismic_image(row.pullbacks[k]),
    "heatmap": lambda row, k: heatmap_image(row.heatmaps[k]),
    "overlay": lambda row, k: row.marked(overlay(row.photograph, row.heatmaps[k]), k),
}
"""A style → the picture of one target."""

STYLES = (*_PICTURES, "grid")


def draw(rows: Sequence[Row], style: str) -> Image.Image:
    """Draw rows in one of `STYLES`, targets as columns; all rows are alike in size and targets.

    Raises:
        InputError: an unknown style.
    """
    if style == "grid":
        return _grid(rows)
    if style not in _PICTURES:
        raise InputError(f"unknown style '{style}'; known: {', '.join(STYLES)}")
    picture = _PICTURES[style]
    return mosaic([[picture(row, k) for k in range(len(row.targets))] for row in rows])


def _grid(rows: Sequence[Row]) -> Image.Image:
    """Photograph, pullback and overlay, with titles, class names and probabilities."""
    cells = []
    for row in rows:
        title = "".join(f"predicted: {name}\n{p:.1%}" for name, p in row.predictions[:1])
        cells.append([Cell(row.marked(Image.fromarray(row.photograph)), title)])
        for k, (target, value) in enumerate(row.targets):
            caption = f"target: {target}\n{row.number(value)}"
            cells[-1] += [
                Cell(_PICTURES["pullback"](row, k), caption),
                Cell(_PICTURES["overlay"](row, k)),
            ]
    return grid(cells, ["photograph", *["pullback", "overlay"] * len(rows[0].targets)])


def write_image(picture: Image.Image, path: Path) -> None:
    """Write a picture in the format of the suffix; the file is replaced as a whole or not at all.

    Raises:
        InputError: the suffix is unknown, the folder missing, or the path not writable.
    """
    file_format = Image.registered_extensions().get(path.suffix.lower())
    if file_format not in Image.SAVE:
        raise InputError(
            f"'{path}' has no suffix of a picture's format; give it one, such as .png or .jpg"
        )
    try:
        encoded = io.BytesIO()
        picture.save(encoded, file_format, **_FINE.get(file_format, {}))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot write '{path}' as {file_format}: {error}") from error
    with replacing(path) as beside:
        beside.write_bytes(encoded.getvalue())


def write_animation(pictures: Sequence[Image.Image], path: Path, milliseconds: int = 400) -> None:
    """Write an animated GIF, PNG or WebP; its last frame is shown four times as long as the others.

    Raises:
        InputError: another suffix, or a path that cannot be written.
    """
    if path.suffix.lower() not in (".gif", ".png", ".webp"):
        raise InputError(f"an animation is a .gif, .png or .webp, not '{path}'")
    durations = [milliseconds] * (len(pictures) - 1) + [4 * milliseconds]
    options: dict[str, Any] = {"duration": durations, "loop": 0}
    with replacing(path) as beside:
        pictures[0].save(beside, save_all=True, append_images=pictures[1:], **options)
