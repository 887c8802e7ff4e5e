"""One picture of many explained images, and how a picture becomes a file."""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxplain.contract.explain import Preprocessing
from onnxplain.contract.picture import (
    GRID,
    OVERLAY,
    PHOTOGRAPH,
    PULLBACK_STYLE,
    SEISMIC,
    PictureOptions,
)
from onnxplain.errors import InputError
from onnxplain.files import replacing
from onnxplain.runtime.inputs.batches import ImageLike, first_image
from onnxplain.runtime.pictures.bar import colour_bar
from onnxplain.runtime.pictures.canvas import Canvas, size_drawn
from onnxplain.runtime.pictures.marks import outlined
from onnxplain.runtime.pictures.render import (
    Cell,
    grid,
    mosaic,
    painted,
    scaled,
    seismic_colours,
    seismic_values,
)

# A pullback's colours change from pixel to pixel: coarse chroma would wash them out.
_FINE: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95},
}
_LONGEST, _LONGEST_CELL = 1024, 512  # pixels of a photograph's longer side; in a grid


@dataclass(frozen=True, eq=False)
class Row:
    """What a figure shows of one image, explained for K targets.

    Attributes:
        photograph: what the network saw, uint8 [H,W,3].
        pullbacks: [K,C,H,W].
        predictions: the likeliest classes as (name, probability), the likeliest first.
        targets: the K targets as (name, probability); or (name, objective) of no classifier.
        probable: whether those numbers are probabilities.
        boxes: of the K targets, [K,4] in pixels of what the network saw, or None.
        region: what the objective looks at, positive inside, [h,w] of the photograph's proportions;
            or None.
        method: by which they are explained.
        source: the image itself, of which the network saw a part; None where that is not known.
        preprocessing: how it became that.
        on_photograph: whether photograph and pullbacks are the whole image's.
    """

    photograph: NDArray[np.uint8]
    pullbacks: NDArray[Any]
    predictions: Sequence[tuple[str, float]]
    targets: Sequence[tuple[str, float]]
    probable: bool = True
    boxes: NDArray[Any] | None = None
    region: NDArray[Any] | None = None
    method: str = ""
    source: ImageLike | None = None
    preprocessing: Preprocessing | None = None
    on_photograph: bool = False

    @functools.cached_property
    def whole(self) -> Image.Image | None:
        """The source, decoded."""
        return None if self.source is None else first_image(self.source)

    def number(self, value: float) -> str:
        """A target's number as text."""
        return f"{value:.1%}" if self.probable else f"{value:.4g}"

    def canvas(self, look: PictureOptions) -> Canvas:
        """What its pictures are drawn on.

        Raises:
            InputError: the size is the network's, and the pullback the whole photograph's.
        """
        if self.on_photograph:
            if look.size != PHOTOGRAPH:
                raise InputError(
                    "this pullback is of the whole photograph, and not of what the network saw of "
                    f"it: leave out size, or give {PHOTOGRAPH}"
                )
            return Canvas.of_whole(self.photograph, _longest(look))
        if look.size == PHOTOGRAPH and self.preprocessing is not None and self.whole is not None:
            height, width = self.photograph.shape[:2]
            return Canvas.of_photograph(
                self.whole, (height, width), self.preprocessing, _longest(look)
            )
        return Canvas.of_network(self.photograph)

    def shown(self, canvas: Canvas) -> Image.Image:
        """The photograph, with outlines of what is explained."""
        return self._marked(Image.fromarray(canvas.photograph), canvas, slice(None))

    def drawn(self, k: int, look: PictureOptions, canvas: Canvas) -> tuple[Image.Image, float]:
        """The picture of one target, of any style but the grid; and its white point."""
        if look.style == SEISMIC:
            colours = seismic_colours(canvas.placed(seismic_values(self.pullbacks[k])))
            return Image.fromarray(colours), 1.0
        values, white = scaled(self.pullbacks[k], look)
        picture = painted(canvas.placed(values), look, canvas.photograph)
        if look.style == OVERLAY:
            picture = self._marked(picture, canvas, slice(k, k + 1))
        return picture, float(white)

    def caption(self, k: int) -> str:
        """What is explained, its number, and by which method, in lines."""
        name, value = self.targets[k]
        return "\n".join([name, self.number(value), *filter(None, [self.method])])

    def _marked(self, picture: Image.Image, canvas: Canvas, chosen: slice) -> Image.Image:
        boxes = () if self.boxes is None else canvas.boxes(self.boxes[chosen])
        region = None
        if self.region is not None:
            region = canvas.inside(self.region, *self.photograph.shape[:2])
        return outlined(picture, boxes, region)


def _longest(look: PictureOptions) -> int:
    return look.longest or (_LONGEST_CELL if look.style == GRID else _LONGEST)


def drawn_pixels(size: tuple[int, int], targets: int, look: PictureOptions) -> int:
    """How many pixels all pictures of one photograph of that width and height have together."""
    width, height = size_drawn(size, _longest(look))
    return (1 + 2 * targets if look.style == GRID else targets) * width * height


def draw(rows: Sequence[Row], look: PictureOptions) -> Image.Image:
    """Draw rows, targets as columns; all rows are alike in targets.

    Photographs of unlike sizes are shown as the network saw them.

    Raises:
        InputError: options that are not as declared, or do not go together; or a photograph that
            can no longer be read.
    """
    look.check()
    canvases = [row.canvas(look) for row in rows]
    if len({canvas.size for canvas in canvases}) > 1:
        canvases = [Canvas.of_network(row.photograph) for row in rows]
    pairs = list(zip(rows, canvases, strict=True))
    if look.style == GRID:
        return _grid(pairs, look)
    several = len(rows) * len(rows[0].targets) > 1
    cells = [
        [_cell(row, k, look, canvas) for k in range(len(row.targets))] for row, canvas in pairs
    ]
    has_captions = several if look.captions is None else look.captions
    if has_captions or look.colour_bar:
        if not has_captions:
            cells = [[cell._replace(caption="") for cell in row] for row in cells]
        return grid(cells)
    return mosaic([[cell.picture for cell in row] for row in cells])


def _cell(row: Row, k: int, look: PictureOptions, canvas: Canvas) -> Cell:
    picture, white = row.drawn(k, look, canvas)
    has_bar = look.colour_bar and look.style not in (PULLBACK_STYLE, SEISMIC)
    bar = colour_bar(look, white, picture.width) if has_bar else None
    return Cell(picture, row.caption(k), bar)


def _grid(pairs: Sequence[tuple[Row, Canvas]], look: PictureOptions) -> Image.Image:
    """Photograph, pullback and overlay, with titles, class names and probabilities."""
    over = replace(look, style=OVERLAY, colour_bar=look.colour_bar is not False)
    own = PictureOptions(style=PULLBACK_STYLE, percentile=look.percentile)
    cells = []
    for row, canvas in pairs:
        title = "".join(f"predicted: {name}\n{p:.1%}" for name, p in row.predictions[:1])
        cells.append([Cell(row.shown(canvas), title)])
        for k in range(len(row.targets)):
            pullback, overlaid = (_cell(row, k, one, canvas) for one in (own, over))
            said = f"target: {pullback.caption}"
            cells[-1] += [pullback._replace(caption=said), overlaid._replace(caption="")]
    if look.captions is False:
        cells = [[cell._replace(caption="") for cell in row] for row in cells]
    titles = ["photograph", *["pullback", "overlay"] * len(pairs[0][0].targets)]
    return grid(cells, titles)


def format_of(path: Path) -> str:
    """The format of the suffix that a picture is to be written to, as Pillow calls it.

    Raises:
        InputError: the suffix is unknown.
    """
    file_format = Image.registered_extensions().get(path.suffix.lower())
    if file_format is None or file_format not in Image.SAVE:
        raise InputError(
            f"'{path}' has no suffix of a picture's format; give it one, such as .png or .jpg"
        )
    return file_format


def check_animation(path: Path) -> None:
    """
    Raises:
        InputError: the suffix is of no format that moves.
    """
    if path.suffix.lower() not in (".gif", ".png", ".webp"):
        raise InputError(f"an animation is a .gif, .png or .webp, not '{path}'")


def write_image(picture: Image.Image, path: Path) -> None:
    """Write a picture in the format of the suffix; the file is replaced as a whole or not at all.

    Raises:
        InputError: the suffix is unknown, the folder missing, or the path not writable.
    """
    file_format = format_of(path)
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
    check_animation(path)
    durations = [milliseconds] * (len(pictures) - 1) + [4 * milliseconds]
    options: dict[str, Any] = {"duration": durations, "loop": 0}
    with replacing(path) as beside:
        pictures[0].save(beside, save_all=True, append_images=pictures[1:], **options)
