"""Pictures of explanations, with NumPy and Pillow alone: `onnxplain.contract.picture` says how."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from onnxplain.contract.colours import blend, gaussian, levels, sampled
from onnxplain.contract.picture import (
    GREATEST,
    GREY,
    HEATMAP,
    LEVELS,
    OVERLAY,
    PULLBACK_STYLE,
    SIGNS,
    PictureOptions,
    rank_from_top,
    reach,
    thinning,
)

_LEAST_CELL = 192  # pixels of a grid's cell on its shorter side: room for its text
_MOST_CELL = 2048  # of one that is enlarged, on its longer side
_LEAST_BLOCK = 64  # rows of a matrix product, below which it is slow
_HEAT, _CHANNELS, _OVER = (PictureOptions(style=s) for s in (HEATMAP, PULLBACK_STYLE, OVERLAY))
_SEISMIC = sampled(np.array(SIGNS["seismic"]), LEVELS + 1)


def white_point(values: NDArray[Any], percentile: float) -> float:
    """What to divide nonnegative `values` by so that those up to `percentile` lie in [0, 1].

    The k-th greatest of them all, k as `rank_from_top` has it; the greatest where that is 0, and 1
    where all of them are.
    """
    rank = rank_from_top(values.size, percentile)
    return float(np.partition(values, -rank, axis=None)[-rank] or values.max() or 1)


def map_white_point(magnitudes: NDArray[Any], percentile: float) -> float:
    """The white point of a map [C,H,W] or [H,W], of every s-th row and column (`thinning`)."""
    height, width = magnitudes.shape[-2:]
    step, rank = thinning(height, width, percentile, magnitudes.size // (height * width))
    thinned = magnitudes[..., ::step, ::step]
    return float(np.partition(thinned, -rank, axis=None)[-rank] or magnitudes.max() or 1)


def smoothed(pullback: NDArray[Any], look: PictureOptions) -> NDArray[np.float64]:
    """Each pixel's value of a pullback [...,C,H,W], before it is scaled; of the style `pullback`
    the channels as they are."""
    values = _counted(pullback)
    if look.style == PULLBACK_STYLE:
        return values if values.shape[-3] in (1, 3) else values.mean(axis=-3, keepdims=True)
    values = (values if look.has_signs else np.abs(values)).sum(axis=-3)
    height, width = values.shape[-2:]
    if (sigma := look.sigma(height, width)) > 0:
        values = _down(_down(values, sigma).swapaxes(-1, -2), sigma).swapaxes(-1, -2)
    return values


def _down(values: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Smooth [...,H,W] along H; block by block, since most of the Gaussian's matrix is 0."""
    size, beyond = values.shape[-2], reach(sigma)
    weights, out = gaussian(size, sigma), np.empty_like(values)
    block = max(beyond, _LEAST_BLOCK)
    for start in range(0, size, block):
        rows = slice(start, start + block)
        near = slice(max(start - beyond, 0), start + block + beyond)
        out[..., rows, :] = weights[rows, near] @ values[..., near, :]
    return out


def _counted(pullback: NDArray[Any]) -> NDArray[np.float64]:
    values = np.asarray(pullback, np.float64)
    return np.where(np.abs(values) < GREATEST, values, 0)


def scaled(
    pullback: NDArray[Any], look: PictureOptions
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """The values of a pullback [...,C,H,W] and their white points.

    Returns:
        [...,H,W], or of the style `pullback` [...,C,H,W], in [0, 1] or [-1, 1]; and [...].
    """
    values = smoothed(pullback, look)
    axes = 3 if look.style == PULLBACK_STYLE else 2
    each = values.reshape(-1, *values.shape[-axes:])
    whites = np.array([map_white_point(np.abs(one), look.white_percentile) for one in each])
    each = (each / whites.reshape(-1, *[1] * axes)).clip(-1 if look.has_signs else 0, 1)
    of = values.shape[:-axes]
    return each.reshape(values.shape).astype(np.float32), whites.reshape(of)


def heatmap(pullback: NDArray[Any]) -> NDArray[np.float32]:
    """Where a pullback [...,C,H,W] is strong: float32 [...,H,W] in [0, 1].

    The sum over channels of |pullback|, smoothed by a Gaussian whose sigma is 2 % of the shorter
    side, divided by its 99th percentile (of each [H,W]), and clipped. Zeros stay zeros.
    """
    return scaled(pullback, _HEAT)[0]


def painted(
    values: NDArray[Any], look: PictureOptions, photograph: NDArray[np.uint8] | None = None
) -> Image.Image:
    """Scaled values as a picture.

    Args:
        values: [H,W], or of the style `pullback` [C,H,W] with C = 1 or 3.
        photograph: uint8 [H,W,3], which an overlay lies over.
    """
    if look.style == PULLBACK_STYLE:
        pixels = (128 + 127.5 * np.asarray(values, np.float32)).astype(np.uint8)
        return Image.fromarray(np.broadcast_to(pixels.transpose(1, 2, 0), (*pixels.shape[1:], 3)))
    at = _level(values, look.has_signs)
    if look.style != OVERLAY or look.transparent or photograph is None:
        return Image.fromarray(levels(look).astype(np.uint8).take(at, axis=0))
    keep, *colours = blend(look).astype(np.float32).T
    kept = keep.take(at) * (photograph.astype(np.float32) @ np.array(GREY, np.float32))
    mixed = np.empty((*at.shape, 3), np.uint8)
    for channel, colour in enumerate(colours):
        mixed[..., channel] = colour.take(at) + kept
    return Image.fromarray(mixed)


def _level(values: NDArray[Any], has_signs: bool) -> NDArray[np.intp]:
    u = np.asarray(values, np.float32)
    scale, shift = (LEVELS / 2, LEVELS / 2) if has_signs else (LEVELS, 0)
    return (u * np.float32(scale) + np.float32(shift + 0.5)).astype(np.intp)


def signed_image(values: NDArray[Any]) -> Image.Image:
    """A pullback or a difference, [C,H,W] with C = 1 or 3: zero is mid-grey, colours are kept.

    Symmetric about zero; the 99.5th percentile of |value| and all above are full colour.
    """
    return painted(scaled(values, _CHANNELS)[0], _CHANNELS)


def seismic_values(values: NDArray[Any]) -> NDArray[np.float64]:
    """The channels' mean of a pullback [C,H,W], in [-1, 1].

    As the authors of semantic pullbacks show it: positive and negative values are each scaled by
    their own largest magnitude.
    """
    mean = _counted(values).mean(axis=-3)
    scaled: NDArray[np.float64] = mean / np.where(mean > 0, mean.max(), -mean.min() or 1)
    return scaled


def seismic_colours(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Numbers [...] in [-1, 1] as colours [...,3], from dark blue over white to dark red."""
    colours: NDArray[np.uint8] = (_SEISMIC + 0.5).astype(np.uint8)[_level(values, True)]
    return colours


def heatmap_image(heat: NDArray[Any]) -> Image.Image:
    """A heatmap [H,W] in [0, 1], from black over violet, red and orange to pale yellow."""
    return painted(heat, _HEAT)


def overlay(photograph: NDArray[np.uint8], heat: NDArray[Any]) -> Image.Image:
    """A heatmap [H,W] in [0, 1] over a photograph [H,W,3]: the hotter, the less of it is seen."""
    return painted(heat, _OVER, photograph)


def mosaic(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Pictures of one size edge to edge."""
    width, height = rows[0][0].size
    page = Image.new(rows[0][0].mode, (width * len(rows[0]), height * len(rows)))
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            page.paste(picture, (j * width, i * height))
    return page


class Cell(NamedTuple):
    """A picture of a grid, what its colours stand for, and the lines of text below it."""

    picture: Image.Image
    caption: str = ""
    bar: Image.Image | None = None


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
    factor = max(1, min(factor, _MOST_CELL // max(picture.size)))
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
        lowest = top + height
        for cell, caption, x in zip(row, captions, lefts, strict=True):
            below = top + height
            placed.append((cell.picture.resize((width, height), Image.Resampling.NEAREST), x, top))
            if cell.bar is not None:
                placed.append((cell.bar, x, below))
                below += cell.bar.height
            placed.append((caption, x, below + gap // 3))
            lowest = max(lowest, below + caption.height)
        top = lowest + gap

    page = Image.new("RGB", (lefts[-1] + width + gap, top), "white")
    for block, x, y in placed:
        page.paste(block, (x, y), block if block.mode == "RGBA" else None)
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
