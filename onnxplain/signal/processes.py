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
    """Which of how many processes this is, and its device."""

    rank: int
    world: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def agree(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        if self.world == 1:
            return flag
        said = torch.tensor(float(flag), device=self.device)
        distributed.all_reduce(said, op=distributed.ReduceOp.MAX)
        return bool(said.item())

    def mean(self, value: torch.Tensor) -> float:
        """The mean over all processes."""
        if self.world > 1:
            value = value.clone()
            distributed.all_reduce(value)
            value /= self.world
        return float(value.item())

    def gathered(self, numbers: set[int]) -> set[int]:
        """The union over all processes."""
        if self.world == 1:
            return numbers
        found: list[set[int]] = [set()] * self.world
        distributed.all_gather_object(found, numbers)
        return set().union(*found)

    def wait(self) -> None:
        """Wait for the other processes."""
        if self.world > 1:
            distributed.barrier()

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """A context that the first process leaves, or fails in, before the others enter."""
        if not self.is_first:
            self.wait()
        try:
            yield
        finally:
            if self.is_first:
                self.wait()


@contextmanager
def joined() -> Iterator[Process]:
    """This process among those that `torchrun` started (by its environment variables), or alone."""
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
    """Whether an interrupt has asked to stop after the current step."""

    asked = False


@contextmanager
def interruptible() -> Iterator[Stop]:
    """A context in which Ctrl-C and SIGTERM ask to stop; a second signal interrupts as usual."""
    stop = Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True

    try:
        before = {name: signal.signal(name, ask) for name in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread, the only one that gets signals
        yield stop
        return
    try:
        yield stop
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
