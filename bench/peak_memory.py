"""The most memory that a process and all that descend from it hold together (Linux)."""

from __future__ import annotations

import threading
from types import TracebackType

import psutil

_SECONDS = 1.0


class PeakMemory:
    """Samples a process tree once a second while it is entered.

    Attributes:
        bytes: the greatest sum over the tree of the proportional set sizes (`Pss`: a page that n
            processes share counts 1/n in each) in any sample.
    """

    def __init__(self, pid: int) -> None:
        self.bytes = 0
        self._root = psutil.Process(pid)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(_SECONDS):
            self.bytes = max(self.bytes, held(self._root))


def held(root: psutil.Process) -> int:
    """The proportional set sizes of a process tree, in bytes; 0 of what has ended."""
    try:
        processes = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    return sum(map(_proportional, processes))


def _proportional(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0
