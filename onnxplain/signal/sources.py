"""Pictures by number: files, arrays, and torchvision's datasets."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxplain.errors import InputError
from onnxplain.runtime.inputs.images import load_image


class Source(Protocol):
    """Pictures by number."""

    @property
    def labels(self) -> Sequence[int]:
        """One label per picture; empty if there are no classes."""
        ...

    def __len__(self) -> int: ...

    def name(self, index: int) -> str: ...

    def read(self, index: int) -> Image.Image:
        """Raises InputError for a picture that cannot be used."""
        ...


@dataclass(frozen=True)
class Files:
    """Image files."""

    paths: Sequence[Path]
    labels: Sequence[int] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        return str(self.paths[index])

    def read(self, index: int) -> Image.Image:
        return load_image(self.paths[index])


@dataclass(frozen=True)
class Arrays:
    """Grey pictures, uint8 [N, H, W]."""

    pixels: NDArray[np.uint8]
    labels: Sequence[int]

    def __len__(self) -> int:
        return len(self.pixels)

    def name(self, index: int) -> str:
        return f"picture {index}"

    def read(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index])


@dataclass(frozen=True)
class Torchvision:
    """A torchvision dataset of (picture, class); `part` names the part of the data."""

    dataset: Any
    labels: Sequence[int]
    part: str

    def __len__(self) -> int:
        return len(self.dataset)

    def name(self, index: int) -> str:
        return f"picture {index} of the {self.part} part"

    def picture(self, index: int) -> Any:
        """A picture as the dataset gives it. Raises InputError if it cannot."""
        try:
            return self.dataset[index][0]
        except Exception as error:  # a dataset that decodes lazily raises whatever its decoder does
            raise InputError(f"{self.name(index)} cannot be read: {error}") from error

    def read(self, index: int) -> Image.Image:
        return load_image(self.picture(index))

    def is_grey(self) -> bool:
        """Judged by the first picture that can be read. Raises InputError if none can."""
        for index in range(len(self)):
            with suppress(InputError):
                return getattr(self.picture(index), "mode", None) == "L"
        raise InputError(f"none of the {len(self)} pictures of the {self.part} part can be read")
