"""A source's pictures as squares of pixels, whole or a random part of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from onnxplain.contract.explain import Preprocessing
from onnxplain.errors import InputError
from onnxplain.runtime.inputs.batches import preprocess
from onnxplain.signal.sources import Files, Source

_LEAST_CROP = 0.5  # share of the largest square's area in a random one


class Sample(NamedTuple):
    """A picture or a batch of them, as tensors or arrays: pixels in [0, 1], float32 [C, H, W];
    labels; and which pictures could not be read on the way."""

    pixels: Any
    labels: Any
    unreadable: list[int]


class Pictures(Dataset[Sample]):
    """A source's pictures, cut to a square.

    Items are indexed by (epoch, index), so that their randomness depends on nothing else and a
    resumed training sees the same pictures. A picture that cannot be read is replaced by the next
    one that can, so that steps keep their size in every process.

    Args:
        augment: whether to cut a random square and mirror half of the pictures, instead of taking
            the centre.
    """

    def __init__(
        self, source: Source, size: int, channels: int, augment: bool = False, seed: int = 0
    ) -> None:
        self.source, self.size, self.augment, self.seed = source, size, augment, seed
        self.pre = Preprocessing(
            height=size,
            width=size,
            resize=round(size * 8 / 7) if isinstance(source, Files) else size,
            mean=(0.0,) * channels,
            std=(1.0,) * channels,
        )

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, item: tuple[int, int]) -> Sample:
        epoch, first = item
        unreadable = []
        for step in range(len(self)):
            index = (first + step) % len(self)
            try:
                pixels = self.pixels(index, epoch)
            except InputError:
                unreadable.append(index)
            else:
                label = self.source.labels[index] if len(self.source.labels) else -1
                return Sample(torch.from_numpy(pixels), label, unreadable)
        # `loader` refuses it: an error raised in a worker process would bring its traceback.
        return Sample(torch.zeros(len(self.pre.mean), self.size, self.size), -1, unreadable)

    def pixels(self, index: int, epoch: int = 0) -> NDArray[np.float32]:
        """One picture, float32 [C, H, W] in [0, 1].

        Raises:
            InputError: it cannot be read.
        """
        picture = self.source.read(index)
        if self.augment:
            picture = self._random_square(picture, np.random.default_rng((self.seed, epoch, index)))
        return np.ascontiguousarray(preprocess(picture, self.pre))

    def _random_square(self, picture: Image.Image, random: np.random.Generator) -> Image.Image:
        side = min(picture.size) * np.sqrt(random.uniform(_LEAST_CROP, 1))
        left, top = (random.uniform(0, length - side) for length in picture.size)
        box = (left, top, left + side, top + side)
        target = (self.pre.resize, self.pre.resize)
        picture = picture.resize(target, Image.Resampling.BILINEAR, box)
        mirror = random.random() < 0.5
        return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirror else picture

    def chosen(self, indices: Sequence[int]) -> NDArray[np.float32]:
        """Those of the pictures that can be read, [n, C, H, W].

        Raises:
            InputError: none of them.
        """
        found = []
        for index in indices:
            with suppress(InputError):
                found.append(self.pixels(index))
        if not found:
            raise InputError("none of the pictures chosen can be read")
        return np.stack(found)

    def batches(self, size: int) -> Iterator[Sample]:
        """All pictures that can be read, in order: float32 [n, C, H, W] and int64 [n], n ≤ size."""
        for first in range(0, len(self), size):
            pixels, labels, unreadable = [], [], []
            for index in range(first, min(first + size, len(self))):
                try:
                    pixels.append(self.pixels(index))
                except InputError:
                    unreadable.append(index)
                else:
                    labels.append(self.source.labels[index] if len(self.source.labels) else -1)
            none = np.empty((0, len(self.pre.mean), self.size, self.size), np.float32)
            found = np.stack(pixels) if pixels else none
            yield Sample(found, np.array(labels, np.int64), unreadable)
