"""How far the compiler has come."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

Progress: TypeAlias = Callable[[float], None]


@contextmanager
def watch(trt: Any, config: Any, progress: Progress | None) -> Iterator[None]:
    """Report to `progress`, a number from 0 to 1, while the engine of `config` is built within.

    What `progress` raises, and Ctrl-C, ends the build and is raised here: an exception must not
    pass through the compiler.
    """
    tree = _Tree()
    failed: list[BaseException] = []

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            tree.start(phase, parent, steps)

        def step_complete(self, phase: str, step: int) -> bool:
            try:
                done = tree.step(phase, step + 1)
                if progress and done is not None:
                    progress(done)
            except BaseException as error:
                failed.append(error)
            return not failed

        def phase_finish(self, phase: str) -> None:
            tree.finish(phase)

    config.progress_monitor = Monitor()
    yield
    if failed:
        raise failed[0]
    if progress:
        progress(1.0)


class _Tree:
    """Phases within steps of phases: a step counts as much as its siblings, whatever it takes.

    The compiler reports from several threads, and names each phase uniquely among those running.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._span: dict[str, tuple[float, float]] = {}  # where a phase lies in the whole
        self._steps: dict[str, tuple[int, int]] = {}  # how many are done, of how many
        self._done = 0.0

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        with self._lock:
            low, high = 0.0, 1.0
            if parent in self._span:
                (low, high), (done, of) = self._span[parent], self._steps[parent]
                low, high = (low + (high - low) * min(k, of) / of for k in (done, done + 1))
            self._span[phase], self._steps[phase] = (low, high), (0, max(steps, 1))

    def step(self, phase: str, done: int) -> float | None:
        """How much of the whole is done now; None if no more than before."""
        with self._lock:
            if phase not in self._span:
                return None
            (low, high), (_, of) = self._span[phase], self._steps[phase]
            self._steps[phase] = done, of
            now = low + (high - low) * min(done, of) / of
            if now <= self._done:
                return None
            self._done = now
            return now

    def finish(self, phase: str) -> None:
        with self._lock:
            self._span.pop(phase, None)
            self._steps.pop(phase, None)
