"""The result of a feature visualisation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from onnxplain.printable import Brief
from onnxplain.vital.settings import Settings


@dataclass(frozen=True, eq=False, repr=False)
class Visualisation(Brief):
    """What N neurons look for.

    Attributes:
        pictures: uint8 [N, H, W, 3].
        alpha: how opaque each pixel is, from 0 to 1, where it is `transparent`: the gradient's
            magnitude over the steps, as `settings.transparency` has it; float32 [N, H, W].
        names: the neurons'.
        neurons: the classes, or the channels of `layer`.
        layer: None for classes.
        losses: for each step, float32 [T, N].
        probabilities: those of the class that the network gives the 8-bit pictures, [N]; NaN for
            channels.
        references: the same for the reference images, on average.
        frames: earlier pictures, uint8 [F, N, H, W, 3].
        settings: with the weights and priors that were used.
        layers: the matched layers.
        provider: what ran the steps.
    """

    pictures: NDArray[np.uint8]
    alpha: NDArray[np.float32]
    names: tuple[str, ...]
    neurons: tuple[int, ...]
    layer: str | None
    losses: NDArray[np.float32]
    probabilities: NDArray[np.float64]
    references: NDArray[np.float64]
    frames: NDArray[np.uint8]
    settings: Settings
    layers: tuple[str, ...]
    provider: str

    def __len__(self) -> int:
        return len(self.pictures)

    def image(self, index: int = 0, transparent: bool = False) -> Image.Image:
        """A picture; if `transparent`, with what the optimisation left alone faded out."""
        pixels = self.pictures[index]
        if transparent and self.settings.transparency == "vital":
            pixels = stretched(pixels)
        picture = Image.fromarray(pixels)
        if transparent:
            picture.putalpha(Image.fromarray(np.rint(255 * self.alpha[index]).astype(np.uint8)))
        return picture


_TINY = float(np.finfo(np.float32).tiny)


def opacity(magnitude: NDArray[np.float32], how: str = "vital") -> NDArray[np.float32]:
    """Magnitudes [N, H, W] as opacities from 0 to 1.

    As in VITAL, 1 from the 98th percentile on; or "smooth": from the 90th, and blurred.
    """
    top = np.percentile(magnitude, 98 if how == "vital" else 90, axis=(1, 2), keepdims=True)
    levels = np.minimum(magnitude / np.maximum(top, _TINY), 1)
    return levels.astype(np.float32) if how == "vital" else _blurred(levels)


def _blurred(levels: NDArray[np.float32]) -> NDArray[np.float32]:
    maps = []
    for own in levels:
        grey = Image.fromarray(np.rint(255 * own).astype(np.uint8))
        maps.append(np.asarray(grey.filter(ImageFilter.GaussianBlur(own.shape[0] / 64))))
    return (np.stack(maps) / 255).astype(np.float32)


def stretched(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture's values, of all colours together, from their 1st to their 99th percentile."""
    low, high = np.percentile(pixels, (1, 99))
    levels = (pixels.clip(low, high) - low) / max(high - low, 1)
    stretched: NDArray[np.uint8] = np.rint(255 * levels).astype(np.uint8)
    return stretched
