"""A picture of what excites channels most."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from onnxplain.errors import InputError
from onnxplain.runtime.inputs.images import load_image
from onnxplain.runtime.pictures.render import Cell, grid
from onnxplain.vital.search.ranking import Patch
from onnxplain.vital.search.top_images import TopImages

_CELL = 192
_INK, _WIDTH = "#ff2a6d", 2


def contact_sheet(
    table: TopImages, channels: Sequence[int], layer: str | None = None
) -> Image.Image:
    """Two rows for each channel: its best patches, and their photographs with the patches marked.

    Raises:
        InputError: no such layer or channel; an interrupted table without images so far; a
            photograph that no longer exists.
    """
    rows: list[list[Cell]] = []
    titles = []
    for channel in channels:
        patches = table.patches(channel, layer)
        if not patches:
            raise InputError(f"channel {channel} has no images yet: the search was interrupted")
        cells = [_cells(patch) for patch in patches]
        rows += [[patch for patch, _ in cells], [photograph for _, photograph in cells]]
        titles += [f"channel {channel}\n{table.ranking(channel, layer).layer.name}", ""]
    return grid(rows, row_titles=titles)


def _cells(patch: Patch) -> tuple[Cell, Cell]:
    """The patch and its photograph, both as large as fits into a cell."""
    photograph = load_image(patch.photograph.path)
    cut = photograph.crop(patch.box)
    scale = _CELL / max(photograph.size)
    marked = photograph.resize(
        (_scaled(photograph.width, scale), _scaled(photograph.height, scale))
    )
    left, top, right, bottom = (round(scale * side) for side in patch.box)
    ends = left, top, max(right - 1, left), max(bottom - 1, top)
    ImageDraw.Draw(marked).rectangle(ends, outline=_INK, width=_WIDTH)
    size = (_CELL, _CELL)
    said = f"{patch.maximum:.3g}\nmean {patch.mean:.3g}"
    return (
        Cell(ImageOps.pad(cut, size, color="white"), said),
        Cell(ImageOps.pad(marked, size, color="white"), Path(patch.photograph.path).name),
    )


def _scaled(side: int, scale: float) -> int:
    return max(1, round(side * scale))
