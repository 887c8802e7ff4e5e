"""Which pictures each training step takes, and the batches made of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from onnxplain.errors import InputError
from onnxplain.signal.pictures import Pictures, Sample


@dataclass(frozen=True)
class BatchSampler:
    """Which pictures each step takes: each epoch takes all of them, in an order of its own.

    The order is a function of the step alone, so that training can resume at any step. The last
    step of an epoch is filled up with the epoch's first pictures.

    Attributes:
        length: how many pictures there are.
        batch: pictures per step, in one process.
        seed: for the order.
        rank, world: which of how many processes this is.
        first, last: the first step, and the one before which to stop.
    """

    length: int
    batch: int
    seed: int
    rank: int
    world: int
    first: int
    last: int

    @staticmethod
    def steps(length: int, batch: int, world: int) -> int:
        """How many steps an epoch has."""
        return -(-length // (batch * world))

    def __len__(self) -> int:
        return self.last - self.first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        each, epoch, order = self.steps(self.length, self.batch, self.world), -1, np.empty(0)
        for step in range(self.first, self.last):
            if step // each != epoch:
                epoch = step // each
                shuffled = np.random.default_rng((self.seed, epoch)).permutation(self.length)
                order = np.resize(shuffled, each * self.batch * self.world)
            begin = ((step % each) * self.world + self.rank) * self.batch
            yield [(epoch, int(index)) for index in order[begin : begin + self.batch]]


def loader(pictures: Pictures, sampler: BatchSampler, workers: int) -> Iterator[Sample]:
    """The sampler's batches, decoded by `workers` further processes.

    Raises:
        InputError: none of the pictures can be read.
    """
    # PyTorch's stubs want a Sampler; any iterable of lists will do.
    batches: Any = sampler
    for batch in DataLoader(
        pictures, batch_sampler=batches, num_workers=workers, collate_fn=_collated, pin_memory=False
    ):
        if len(set(batch.unreadable)) == len(pictures):
            raise InputError(f"none of the {len(pictures)} pictures can be read")
        yield batch


def _collated(samples: list[Sample]) -> Sample:
    pixels: Tensor = torch.stack([sample.pixels for sample in samples])
    labels = torch.tensor([sample.labels for sample in samples])
    return Sample(pixels, labels, [index for sample in samples for index in sample.unreadable])
