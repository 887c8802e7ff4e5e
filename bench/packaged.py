"""The photographs that installed packages bring, for what wants more than three."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

LONGEST = 512
"""Pixels of the longer side of what is written."""


def _skimage(name: str) -> Image.Image:
    import skimage.data

    return Image.fromarray(getattr(skimage.data, name)())


def _motorcycle(side: str) -> Image.Image:
    import skimage.data

    return Image.open(Path(skimage.data.__file__).with_name(f"motorcycle_{side}.png"))


def _sklearn(name: str) -> Image.Image:
    from sklearn.datasets import load_sample_image

    return Image.fromarray(load_sample_image(f"{name}.jpg"))


def _matplotlib(name: str) -> Image.Image:
    import matplotlib

    return Image.open(Path(matplotlib.get_data_path()) / "sample_data" / f"{name}.jpg")


PHOTOGRAPHS: Mapping[str, tuple[Callable[[str], Image.Image], str]] = {
    **{name: (_skimage, name) for name in ("chelsea", "coffee", "rocket", "astronaut")},
    **{name: (_skimage, name) for name in ("camera", "coins", "retina", "moon", "page", "clock")},
    "hubble": (_skimage, "hubble_deep_field"),
    "motorcycle-left": (_motorcycle, "left"),
    "motorcycle-right": (_motorcycle, "right"),
    **{name: (_sklearn, name) for name in ("china", "flower")},
    "hopper": (_matplotlib, "grace_hopper"),
}
"""By name. Some show what a network of ImageNet has no class for: it is unsure of those, as of much
that it meets in use."""


def write_photographs(folder: Path, names: Any = tuple(PHOTOGRAPHS)) -> list[Path]:
    """The photographs as files, at most 512 pixels long."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in names:
        read, of = PHOTOGRAPHS[name]
        picture = read(of).convert("RGB")
        picture.thumbnail((LONGEST, LONGEST))
        paths.append(folder / f"{name}.png")
        picture.save(paths[-1])
    return sorted(paths)
