"""Pictures of explanations whose inputs are no photographs: volumes, series, tables, tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from onnxplain.contract.values import NUMBERS, PICTURE, SERIES, TABLE, TOKENS, VOLUME
from onnxplain.runtime.pictures.render import (
    fitting,
    heatmap,
    heatmap_image,
    overlay,
    seismic_colours,
    signed_image,
    text_block,
    white_point,
)

Array: TypeAlias = NDArray[Any]

_WIDTH, _GAP, _TEXT = 720, 12, 15  # pixels
_BAR, _MOST_BARS = 22, 40
_SIDE = 224  # of a slice
_INK, _GREY, _RULE = "#1a1a1a", "#666666", "#d0d0d0"


@dataclass(frozen=True, eq=False)
class Shown:
    """A value of one sample, explained for one target.

    Attributes:
        name: the value's.
        kind: of `onnxplain.contract.values.KINDS`.
        pullback: without batch and targets.
        value: what it was, alike; the tokens [T] of their embeddings [T,D]; None where that is not
            known, as within the network.
        names: of tokens or columns, in their order; as many as there are.
        signed: whether the parts of an entry add up, as of relevances; else of several parts the
            length counts.
    """

    name: str
    kind: str
    pullback: Array
    value: Array | None = None
    names: Sequence[str] = ()
    signed: bool = False

    def over(self, axis: int) -> Array:
        """The pullback with the parts along an axis put together."""
        parts = self.pullback.astype(np.float64)
        if self.signed or parts.shape[axis] == 1:
            return np.asarray(parts.sum(axis))
        return np.asarray(np.sqrt((parts**2).sum(axis)))


def page(rows: Sequence[tuple[str, Sequence[Shown]]]) -> Image.Image:
    """Every row's caption, and the pictures of its values, below each other."""
    blocks: list[Image.Image] = []
    for caption, values in rows:
        blocks.append(text_block(caption, _TEXT + 2, _WIDTH))
        for shown in values:
            if len(values) > 1:
                blocks.append(text_block(shown.name, _TEXT, _WIDTH))
            blocks.append(_PICTURES[shown.kind](shown))
    width = max(block.width for block in blocks) + 2 * _GAP
    sheet = Image.new("RGB", (width, sum(b.height + _GAP for b in blocks) + _GAP), "white")
    top = _GAP
    for block in blocks:
        sheet.paste(block, ((width - block.width) // 2, top))
        top += block.height + _GAP
    return sheet


def _picture(shown: Shown) -> Image.Image:
    """An image [C,H,W], its pullback, and where that is strong over it."""
    g, x = (None if a is None else _channels_first(a) for a in (shown.pullback, shown.value))
    assert g is not None
    if len(g) not in (1, 3):
        g = shown.over(0)[None]
    parts = [signed_image(g)]
    heat = heatmap(g)
    if x is None:
        parts.append(heatmap_image(heat))
    else:
        grey = _grey(x if len(x) == 3 else x.mean(0, keepdims=True))
        parts = [Image.fromarray(grey), *parts, overlay(grey, heat)]
    return _beside([_enlarged(part) for part in parts])


def _channels_first(x: Array) -> Array:
    return np.moveaxis(x, -1, 0) if x.shape[-1] in (1, 3) and x.shape[0] not in (1, 3) else x


def _grey(x: Array) -> NDArray[np.uint8]:
    """Values [C,H,W], from the least, black, to the greatest, white, as [H,W,3]."""
    low, high = float(x.min()), float(x.max())
    scaled = (x - low) / (high - low or 1.0)
    pixels = np.rint(255 * scaled).astype(np.uint8).transpose(1, 2, 0)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def _volume(shown: Shown) -> Image.Image:
    """A volume [C,D,H,W]: the slices through its most relevant place, along each axis, over them
    where the pullback is strong, and its greatest magnitudes along that axis."""
    relevance = np.abs(shown.over(0))
    at = np.unravel_index(int(relevance.argmax()), relevance.shape)
    white = white_point(relevance, 99.5)
    rows = []
    for axis, name in enumerate("DHW"):
        heat = (relevance.take(at[axis], axis) / white).clip(0, 1)
        most = heatmap_image((relevance.max(axis) / white).clip(0, 1))
        parts = [heatmap_image(heat), most]
        titles = [f"pullback, {name} = {at[axis]}", f"greatest along {name}"]
        if shown.value is not None:
            grey = _grey(shown.value.mean(0).take(at[axis], axis)[None])
            parts = [Image.fromarray(grey), overlay(grey, heat), most]
            titles = [f"slice {name} = {at[axis]}", "pullback over it", titles[1]]
        rows.append(_beside([_titled(p, t) for p, t in zip(parts, titles, strict=True)]))
    return _below(rows)


def _titled(picture: Image.Image, title: str) -> Image.Image:
    picture = _enlarged(picture)
    return _below([text_block(title, _TEXT - 2, picture.width), picture], 2)


def _series(shown: Shown) -> Image.Image:
    """Lines [C,L] or [L], one below the other, coloured by their pullback: blue what is negative,
    red what is positive; of a value that is not known the pullback itself."""
    g = np.atleast_2d(shown.pullback).astype(np.float64)
    x = g if shown.value is None else np.atleast_2d(shown.value).astype(np.float64)
    strength = (g / white_point(np.abs(g), 99.5)).clip(-1, 1)
    lines = [_line(x[c], strength[c]) for c in range(min(len(x), _MOST_BARS))]
    return _below(lines, 4)


def _line(x: Array, strength: Array) -> Image.Image:
    height = 120
    picture = Image.new("RGB", (_WIDTH, height), "white")
    draw = ImageDraw.Draw(picture)
    low, high = float(x.min()), float(x.max())
    lefts = np.linspace(4, _WIDTH - 5, len(x))
    tops = (height - 8) * (1 - (x - low) / (high - low or 1.0)) + 4
    if low < 0 < high:
        zero = (height - 8) * (1 + low / (high - low)) + 4
        draw.line([(0, zero), (_WIDTH, zero)], _RULE)
    colours = _inks(strength)
    points = list(zip(lefts.tolist(), tops.tolist(), strict=True))
    for i in range(len(points) - 1):
        stronger = max(i, i + 1, key=lambda k: abs(strength[k]))
        wide = 1 + round(3 * float(abs(strength[stronger])))
        draw.line([points[i], points[i + 1]], colours[stronger], wide)
    return picture


def _inks(strength: Array) -> list[tuple[int, ...]]:
    """Colours on white of numbers in [-1, 1]: grey for 0, blue and red at the ends."""
    cover = np.abs(strength)[:, None] ** 0.7
    full = np.where(strength[:, None] < 0, (20, 60, 200), (200, 20, 20))
    colours = (1 - cover) * 175 + cover * full
    return [tuple(row) for row in np.rint(colours).astype(int).tolist()]


def _table(shown: Shown) -> Image.Image:
    """A row of a table, [F]: a bar for each column, of those with the greatest magnitudes."""
    g = shown.pullback.reshape(-1).astype(np.float64)
    values = None if shown.value is None else shown.value.reshape(-1)
    names = shown.names or [str(i) for i in range(len(g))]
    labels = [
        name if values is None else f"{name} = {values[i]:.4g}" for i, name in enumerate(names)
    ]
    return _bars(labels, g)


def _tokens(shown: Shown) -> Image.Image:
    """Tokens in their order, each on the colour of its pullback [T,D]; bars where there are few."""
    g = shown.over(-1) if shown.pullback.ndim > 1 else shown.pullback.astype(np.float64)
    g = g.reshape(-1)
    given = [] if shown.value is None else shown.value.reshape(-1).tolist()
    known = (list(map(str, names)) for names in (shown.names, given) if len(names) == len(g))
    names = next(known, list(map(str, range(len(g)))))
    words = _words(names, g)
    return _below([words, _bars(names, g)]) if len(g) <= _MOST_BARS else words


def _words(names: Sequence[str], g: Array) -> Image.Image:
    font: Any = ImageFont.load_default(_TEXT)
    strength = (g / white_point(np.abs(g), 100)).clip(-1, 1)
    step, left, top = 2 * _TEXT, 0, 0
    places = []
    for name in names:
        width = min(math.ceil(font.getlength(name)) + _TEXT, _WIDTH)
        if left + width > _WIDTH:
            left, top = 0, top + step + 4
        places.append((left, top, width))
        left += width + 4
    picture = Image.new("RGB", (_WIDTH, top + step), "white")
    draw = ImageDraw.Draw(picture)
    for name, (x, y, width), part in zip(names, places, strength.tolist(), strict=True):
        colour = tuple(round(255 - abs(part) * (255 - c)) for c in _end(part))
        draw.rectangle([x, y, x + width - 1, y + step - 1], colour, _RULE)
        line = fitting(name, font, width - 4)
        draw.text((x + width / 2, y + step / 2), line, _INK, font, anchor="mm")
    return picture


def _end(part: float) -> tuple[int, int, int]:
    return (110, 150, 245) if part < 0 else (240, 110, 100)


def _bars(names: Sequence[str], g: Array) -> Image.Image:
    """A bar to the left or right for each entry, in their order; the `_MOST_BARS` greatest."""
    most = np.sort(np.argsort(-np.abs(g), kind="stable")[:_MOST_BARS]).tolist()
    left, right = 220, 90
    font: Any = ImageFont.load_default(_TEXT - 2)
    rows = len(most) + (len(most) < len(g))
    picture = Image.new("RGB", (_WIDTH, rows * _BAR + 4), "white")
    draw = ImageDraw.Draw(picture)
    low, high = min(float(g.min()), 0.0), max(float(g.max()), 0.0)
    scale = (_WIDTH - left - right) / (high - low or 1.0)
    zero = left - low * scale
    draw.line([(zero, 0), (zero, len(most) * _BAR)], _RULE)
    for row, i in enumerate(most):
        middle, end = (row + 0.5) * _BAR, zero + float(g[i]) * scale
        ends = sorted([zero, end])
        draw.rectangle([ends[0], middle - 7, ends[1], middle + 7], _end(float(g[i])))
        draw.text((left - 12, middle), fitting(names[i], font, left - 16), _INK, font, anchor="rm")
        draw.text((_WIDTH - 4, middle), f"{g[i]:.3g}", _GREY, font, anchor="rm")
    if len(most) < len(g):
        more = f"… and {len(g) - len(most)} of less"
        draw.text((left - 12, (rows - 0.5) * _BAR), more, _GREY, font, anchor="rm")
    return picture


def _numbers(shown: Shown) -> Image.Image:
    """Numbers of any shape as a sheet: the last axis across."""
    g = shown.pullback.reshape(-1, shown.pullback.shape[-1]) if shown.pullback.ndim else None
    if g is None or g.shape[0] == 1:
        return _bars([str(i) for i in range(shown.pullback.size)], shown.pullback.reshape(-1))
    white = white_point(np.abs(g), 99.5)
    return _enlarged(Image.fromarray(seismic_colours((g / white).clip(-1, 1))))


def _enlarged(picture: Image.Image) -> Image.Image:
    """By a whole factor, to the side of a slice; what is larger than two is made smaller."""
    factor = max(1, _SIDE // max(picture.size))
    size = (picture.width * factor, picture.height * factor)
    picture = picture.resize(size, Image.Resampling.NEAREST)
    picture.thumbnail((2 * _SIDE, 2 * _SIDE))
    return picture


def _beside(parts: Sequence[Image.Image], gap: int = 8) -> Image.Image:
    width = sum(part.width for part in parts) + gap * (len(parts) - 1)
    sheet = Image.new("RGB", (width, max(part.height for part in parts)), "white")
    left = 0
    for part in parts:
        sheet.paste(part, (left, 0))
        left += part.width + gap
    return sheet


def _below(parts: Sequence[Image.Image], gap: int = 8) -> Image.Image:
    height = sum(part.height for part in parts) + gap * (len(parts) - 1)
    sheet = Image.new("RGB", (max(part.width for part in parts), height), "white")
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height + gap
    return sheet


_PICTURES: Mapping[str, Callable[[Shown], Image.Image]] = {
    PICTURE: _picture,
    VOLUME: _volume,
    SERIES: _series,
    TABLE: _table,
    TOKENS: _tokens,
    NUMBERS: _numbers,
}
