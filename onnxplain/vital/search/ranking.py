"""The best images of each channel of a layer, batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnxplain.contract.channels import Box, ChannelLayer
from onnxplain.contract.explain import Preprocessing
from onnxplain.runtime.inputs.batches import in_photograph

ORDERS = ("max", "mean")
"""What images are ranked by: a channel's greatest activation, or its mean over the positions."""


class Photograph(NamedTuple):
    """A file, and its size in pixels when upright."""

    path: str
    width: int
    height: int


@dataclass(frozen=True)
class Patch:
    """What excites a channel in a photograph.

    Attributes:
        photograph: the file.
        maximum: the channel's greatest activation.
        mean: its mean over the positions.
        position: where the maximum is, counted row by row.
        box: what that position sees of the photograph, in the photograph's pixels.
    """

    photograph: Photograph
    maximum: float
    mean: float
    position: int
    box: Box


@dataclass(frozen=True)
class Found:
    """A layer's activations for N images: maxima, means [N, C], positions int64 [N, C]."""

    maxima: NDArray[np.float32]
    means: NDArray[np.float32]
    positions: NDArray[np.int64]


@dataclass(frozen=True)
class Ranking:
    """The k best images of each of C channels, best first.

    Ties (a ReLU6 is often at its 6) are broken by the other order, and then by which came first.

    Attributes:
        layer: the layer that has the channels.
        by: one of `ORDERS`.
        maxima, means: float32 [C, k]; −∞ if there were fewer images.
        positions: int64 [C, k].
        photographs: [C, k], each a `Photograph` or None.
    """

    layer: ChannelLayer
    by: str
    maxima: NDArray[np.float32]
    means: NDArray[np.float32]
    positions: NDArray[np.int64]
    photographs: NDArray[Any]

    @classmethod
    def empty(cls, layer: ChannelLayer, by: str, k: int) -> Ranking:
        shape = layer.channels, k
        maxima, means = (np.full(shape, -np.inf, np.float32) for _ in range(2))
        none = np.full(shape, None, object)
        return cls(layer, by, maxima, means, np.zeros(shape, np.int64), none)

    def merged(self, found: Found, photographs: Sequence[Photograph]) -> Ranking:
        """A new ranking with N more images, which come after all earlier ones."""
        more = np.empty(len(photographs), object)
        for i, photograph in enumerate(photographs):
            more[i] = photograph
        first, second = self._keys(self.maxima, self.means)
        firsts, seconds = self._keys(found.maxima.T, found.means.T)
        last, next_ = first[:, -1:], second[:, -1:]
        better = (firsts > last) | ((firsts == last) & (seconds > next_))
        rows = np.flatnonzero(better.any(axis=1))  # few, once many images have been seen
        if not rows.size:
            return self
        keys = [
            -np.concatenate([before[rows], added[rows]], axis=1)
            for before, added in ((second, seconds), (first, firsts))
        ]
        order = np.lexsort(keys, axis=1)[:, : first.shape[1]]

        def chosen(before: NDArray[Any], added: NDArray[Any]) -> NDArray[Any]:
            both = np.concatenate([before[rows], added[rows]], axis=1)
            after = before.copy()
            after[rows] = np.take_along_axis(both, order, axis=1)
            return after

        return replace(
            self,
            maxima=chosen(self.maxima, found.maxima.T),
            means=chosen(self.means, found.means.T),
            positions=chosen(self.positions, found.positions.T),
            photographs=chosen(
                self.photographs, np.broadcast_to(more, (len(self.maxima), len(more)))
            ),
        )

    def patches(self, channel: int, pre: Preprocessing) -> list[Patch]:
        """A channel's patches, best first."""
        patches = []
        for maximum, mean, position, photograph in zip(
            self.maxima[channel].tolist(),
            self.means[channel].tolist(),
            self.positions[channel].tolist(),
            self.photographs[channel],
            strict=True,
        ):
            if photograph is None:
                break
            seen = self.layer.box(position, pre.height, pre.width)
            box = in_photograph(seen, photograph[1:], pre)
            patches.append(Patch(photograph, maximum, mean, position, box))
        return patches

    def _keys(
        self, maxima: NDArray[np.float32], means: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What decides, and what breaks ties."""
        return (means, maxima) if self.by == "mean" else (maxima, means)
