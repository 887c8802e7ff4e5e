"""The result of a feature visualisation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from onnxplain.vital.settings import Settings


@dataclass(frozen=True, eq=False)
class Visualisation:
    """What N neurons look for.

    Attributes:
        pictures: uint8 [N, H, W, 3].
        alpha: how opaque each pixel is, from 0 to 1: the gradient's magnitude over the steps,
            relative to its 90th percentile, blurred; float32 [N, H, W].
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
        picture = Image.fromarray(self.pictures[index])
        if transparent:
            picture.putalpha(Image.fromarray(np.rint(255 * self.alpha[index]).astype(np.uint8)))
        return picture


def opacity(magnitude: NDArray[np.float32]) -> NDArray[np.float32]:
    """Magnitudes [N, H, W] as opacities from 0 to 1, smoothed: 1 from the 90th percentile on."""
    maps = []
    for own in magnitude:
        level = np.minimum(own / max(np.percentile(own, 90), np.finfo(np.float32).tiny), 1)
        grey = Image.fromarray(np.rint(255 * level).astype(np.uint8))
        maps.append(np.asarray(grey.filter(ImageFilter.GaussianBlur(own.shape[0] / 64))))
    return (np.stack(maps) / 255).astype(np.float32)
