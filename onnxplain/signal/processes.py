"""One process, or several that `torchrun` started, each with a device of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import torch
from torch import distributed


@dataclass(frozen=True)
class Process:
    """Which of how many processes this is, and the device that it computes on."""

    rank: int
    world: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether it is the one that writes files."""
        return self.rank == 0

    def agree(self, flag: bool) -> bool:
        """Whether any of the processes says so."""
        if self.world == 1:
            return flag
        said = torch.tensor(float(flag), device=self.device)
        distributed.all_reduce(said, op=distributed.ReduceOp.MAX)
        return bool(said.item())

    def mean(self, value: torch.Tensor) -> float:
        """Of all processes' values."""
        if self.world > 1:
            value = value.clone()
            distributed.all_reduce(value)
            value /= self.world
        return float(value.item())

    def gathered(self, numbers: set[int]) -> set[int]:
        """All processes' numbers."""
        if self.world == 1:
            return numbers
        found: list[set[int]] = [set()] * self.world
        distributed.all_gather_object(found, numbers)
        return set().union(*found)

    def wait(self) -> None:
        """For the others."""
        if self.world > 1:
            distributed.barrier()

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """Within, the first process comes to its end, or fails, before the others begin."""
        if not self.is_first:
            self.wait()
        try:
            yield
        finally:
            if self.is_first:
                self.wait()


@contextmanager
def joined() -> Iterator[Process]:
    """This process among those of `torchrun`, which tells by environment variables; else alone."""
    world, rank = (int(os.environ.get(name, n)) for name, n in (("WORLD_SIZE", 1), ("RANK", 0)))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    if world == 1:
        yield Process(0, 1, device)
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Process(rank, world, device)
    finally:
        distributed.destroy_process_group()


class Stop:
    """Whether an interrupt has asked for the end, which comes after the step that is running."""

    asked = False


@contextmanager
def interruptible() -> Iterator[Stop]:
    """Within, Ctrl-C and SIGTERM ask once to stop; a second Ctrl-C interrupts as ever."""
    stop = Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True

    try:
        before = {name: signal.signal(name, ask) for name in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread, which alone gets signals
        yield stop
        return
    try:
        yield stop
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
