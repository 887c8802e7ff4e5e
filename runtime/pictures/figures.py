"""One picture of a whole explanation, and how a picture becomes a file."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxplain.errors import InputError
from onnxplain.files import replacing
from onnxplain.runtime.pictures.render import (
    Cell,
    grid,
    heatmap_image,
    mosaic,
    overlay,
    signed_image,
)

if TYPE_CHECKING:
    from onnxplain.runtime.explanation import Explanation

# A pullback's colours change from pixel to pixel: coarse chroma would wash them out.
_FINE: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95},
}

STYLES = ("pullback", "heatmap", "overlay", "grid")


def draw(explanation: Explanation, style: str) -> Image.Image:
    """The explanation in a style that `Explanation.save` lists: images are rows, targets columns.

    Raises:
        InputError: an unknown style.
    """
    images = range(len(explanation))
    height, width = explanation.photographs.shape[1:3]
    pullbacks = explanation.pullback.reshape(len(images), -1, *explanation.pullback.shape[-3:])
    targets = range(pullbacks.shape[1])

    @functools.cache
    def heatmaps(i: int) -> NDArray[np.float32]:
        return explanation[i].heatmap().reshape(-1, height, width)

    pictures: dict[str, Callable[[int, int], Image.Image]] = {
        "pullback": lambda i, k: signed_image(pullbacks[i, k]),
        "heatmap": lambda i, k: heatmap_image(heatmaps(i)[k]),
        "overlay": lambda i, k: overlay(explanation.photographs[i], heatmaps(i)[k]),
    }
    if style in pictures:
        return mosaic([[pictures[style](i, k) for k in targets] for i in images])
    if style not in STYLES:
        raise InputError(f"unknown style '{style}'; known: {', '.join(STYLES)}")

    names = np.array(explanation.names).reshape(len(images), -1)
    probabilities = explanation.target_probabilities.reshape(len(images), -1)
    rows = []
    for i, [(predicted, probability)] in enumerate(explanation.labels(k=1)):
        photograph = Image.fromarray(explanation.photographs[i])
        row = [Cell(photograph, f"predicted: {predicted}\n{probability:.1%}")]
        for k in targets:
            caption = f"target: {names[i, k]}\n{probabilities[i, k]:.1%}"
            row += [Cell(pictures["pullback"](i, k), caption), Cell(pictures["overlay"](i, k))]
        rows.append(row)
    return grid(rows, ["photograph", *["pullback", "overlay"] * len(targets)])


def write_image(picture: Image.Image, path: Path) -> None:
    """Write the picture in the format of the suffix; the file is replaced as a whole or not at all.

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
    """Write frames, each shown so long and the last four times, as an animated GIF, PNG or WebP.

    Raises:
        InputError: another suffix, or a path that cannot be written.
    """
    if path.suffix.lower() not in (".gif", ".png", ".webp"):
        raise InputError(f"an animation is a .gif, .png or .webp, not '{path}'")
    durations = [milliseconds] * (len(pictures) - 1) + [4 * milliseconds]
    options: dict[str, Any] = {"duration": durations, "loop": 0}
    with replacing(path) as beside:
        pictures[0].save(beside, save_all=True, append_images=pictures[1:], **options)
