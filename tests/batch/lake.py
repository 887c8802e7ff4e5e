"""A lake of small images."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image


def encoded(number: int) -> bytes:
    """A small PNG that no other number has."""
    pixels = np.random.default_rng(number).integers(0, 256, (20, 24, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def make_lake(folder: Path, count: int) -> Path:
    """A folder of `count` images in subfolders, of which number 3 is damaged."""
    for number in range(count):
        path = folder / f"{number // 10:02d}" / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(number)[: 60 if number == 3 else None])
    return folder
