"""Pictures of explanations, with Pillow alone."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_SMOOTHING = 0.02  # the sigma of a heatmap's Gaussian, as a part of the shorter side
_HEAT_WHITE_POINT = 99  # the percentile of a heatmap that becomes 1
_SIGNED_WHITE_POINT = 99.5  # the percentile of |value| that becomes full colour
_LEAST_CELL = 192  # pixels of a grid's cell on its shorter side: room for its text

# Black, violet, red, orange, pale yellow: lightness rises evenly (matplotlib's inferno, CC0).
_HEAT = np.array(
    [
        (0, 0, 4),
        (31, 12, 72),
        (85, 15, 109),
        (136, 34, 106),
        (186, 54, 85),
        (227, 89, 51),
        (249, 140, 10),
        (249, 201, 50),
        (252, 255, 164),
    ]
)

# Dark blue, blue, white, red, dark red (matplotlib's seismic).
_SEISMIC = np.array([(0, 0, 76.5), (0, 0, 255), (255, 255, 255), (255, 0, 0), (127.5, 0, 0)])


def white_point(values: NDArray[Any], percentile: float, axis: Any = None) -> NDArray[Any]:
    """What to divide nonnegative `values` by so that those up to `percentile` lie in [0, 1].

    The greatest value where the percentile is 0, and 1 where all of them are.
    """
    white = np.percentile(values, percentile, axis=axis, keepdims=True)
    white = np.where(white > 0, white, values.max(axis=axis, keepdims=True))
    return np.where(white > 0, white, 1)


def heatmap(pullback: NDArray[Any]) -> NDArray[np.float32]:
    """Where a pullback [...,C,H,W] is strong: float32 [...,H,W] in [0, 1].

    The sum over channels of |pullback|, smoothed by a Gaussian whose sigma is 2 % of the shorter
    side, divided by its 99th percentile (of each [H,W]), and clipped. Zeros stay zeros.
    """
    strength = np.abs(pullback).sum(axis=-3, dtype=np.float64)
    height, width = strength.shape[-2:]
    sigma = _SMOOTHING * min(height, width)
    strength = _gaussian(height, sigma) @ strength @ _gaussian(width, sigma).T
    strength /= white_point(strength, _HEAT_WHITE_POINT, axis=(-2, -1))
    heat: NDArray[np.float32] = strength.clip(0, 1).astype(np.float32)
    return heat


def _gaussian(size: int, sigma: float) -> NDArray[np.float64]:
    """The [size,size] matrix that smooths a signal; its rows sum to 1 also at the borders."""
    distance = np.subtract.outer(np.arange(size), np.arange(size)) / sigma
    weights: NDArray[np.float64] = np.exp(-(distance**2) / 2)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights


def signed_image(values: NDArray[Any]) -> Image.Image:
    """A pullback or a difference, [C,H,W] with C = 1 or 3: zero is mid-grey, colours are kept.

    Symmetric about zero; the 99.5th percentile of |value| and all above are full colour.
    """
    scaled = (values / white_point(np.abs(values), _SIGNED_WHITE_POINT)).clip(-1, 1)
    pixels = np.rint(127.5 + 127.5 * scaled).astype(np.uint8)
    return Image.fromarray(np.broadcast_to(pixels.transpose(1, 2, 0), (*pixels.shape[1:], 3)))


def seismic_image(values: NDArray[Any]) -> Image.Image:
    """The channels' mean of a pullback [C,H,W], from dark blue over white to dark red.

    As the authors of semantic pullbacks show it: positive and negative values are each scaled by
    their own largest magnitude.
    """
    mean = values.mean(axis=-3, dtype=np.float64)
    return Image.fromarray(seismic_colours(mean / np.where(mean > 0, mean.max(), -mean.min() or 1)))


def seismic_colours(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Numbers [...] in [-1, 1] as colours [...,3]."""
    anchors = np.linspace(-1, 1, len(_SEISMIC))
    colours = [np.interp(values, anchors, channel) for channel in _SEISMIC.T]
    return np.rint(np.stack(colours, axis=-1)).astype(np.uint8)


def heatmap_image(heat: NDArray[Any]) -> Image.Image:
    """A heatmap [H,W] in [0, 1], from black over violet, red and orange to pale yellow."""
    return Image.fromarray(np.rint(_heat_colours(heat)).astype(np.uint8))


def overlay(photograph: NDArray[np.uint8], heat: NDArray[Any]) -> Image.Image:
    """A heatmap [H,W] in [0, 1] over a photograph [H,W,3]: the hotter, the less of it is seen."""
    grey = photograph @ np.array([0.299, 0.587, 0.114])
    cover = 0.85 * heat[..., None] ** 0.75
    blend = (1 - cover) * 0.8 * grey[..., None] + cover * _heat_colours(heat)
    return Image.fromarray(np.rint(blend).astype(np.uint8))


def _heat_colours(heat: NDArray[Any]) -> NDArray[np.float64]:
    anchors = np.linspace(0, 1, len(_HEAT))
    return np.stack([np.interp(heat, anchors, channel) for channel in _HEAT.T], axis=-1)


def mosaic(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Pictures of one size edge to edge."""
    width, height = rows[0][0].size
    page = Image.new("RGB", (width * len(rows[0]), height * len(rows)))
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            page.paste(picture, (j * width, i * height))
    return page


class Cell(NamedTuple):
    """A picture of a grid, and the lines of text below it."""

    picture: Image.Image
    caption: str = ""


def grid(
    rows: Sequence[Sequence[Cell]],
    column_titles: Sequence[str] = (),
    row_titles: Sequence[str] = (),
) -> Image.Image:
    """Pictures of one size in rows and columns on white, with titles and captions.

    Small pictures are enlarged by a whole factor. Titles and captions may have several lines; a
    line that does not fit is cut with an ellipsis.
    """
    picture = rows[0][0].picture
    factor = math.ceil(_LEAST_CELL / min(picture.size))
    width, height = factor * picture.width, factor * picture.height
    size = max(13, min(width, height) // 16)
    title_size, gap = round(1.15 * size), size

    row_blocks = [text_block(title, title_size, width // 2) for title in row_titles]
    left = gap + (width // 2 + gap if row_titles else 0)
    lefts = [left + j * (width + gap) for j in range(len(rows[0]))]
    top = gap
    placed: list[tuple[Image.Image, int, int]] = []
    if column_titles:
        blocks = [text_block(title, title_size, width) for title in column_titles]
        placed += [(block, x, top) for block, x in zip(blocks, lefts, strict=True)]
        top += max(block.height for block in blocks) + gap // 3
    for i, row in enumerate(rows):
        if row_blocks:
            placed.append((row_blocks[i], gap, top + (height - row_blocks[i].height) // 2))
        captions = [text_block(cell.caption, size, width) for cell in row]
        for cell, caption, x in zip(row, captions, lefts, strict=True):
            enlarged = cell.picture.resize((width, height), Image.Resampling.NEAREST)
            placed += [(enlarged, x, top), (caption, x, top + height + gap // 3)]
        top += height + max(caption.height for caption in captions) + gap

    page = Image.new("RGB", (lefts[-1] + width + gap, top), "white")
    for block, x, y in placed:
        page.paste(block, (x, y))
    return page


def text_block(text: str, size: float, width: int) -> Image.Image:
    """Centred lines of `text` on white, `width` wide; the first is darker than those below."""
    font = ImageFont.load_default(size)
    lines = [fitting(line, font, width) for line in text.splitlines()]
    step = math.ceil(1.35 * size)
    block = Image.new("RGB", (width, step * len(lines)), "white")
    draw = ImageDraw.Draw(block)
    for i, line in enumerate(lines):
        ink = "#1a1a1a" if i == 0 else "#666666"
        draw.text((width / 2, (i + 0.5) * step), line, ink, font, anchor="mm")
    return block


def fitting(line: str, font: Any, width: int) -> str:
    """The line, or as much of its beginning as fits before an ellipsis."""
    if font.getlength(line) <= width:
        return line
    fitting = bisect_right(
        range(len(line)), width, key=lambda end: font.getlength(line[:end] + "…")
    )
    return line[: max(fitting - 1, 0)].rstrip() + "…"
