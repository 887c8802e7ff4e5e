"""Progress bars, which vanish when all is done; lines now and then where no terminal shows them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from onnxplain.cli.console import err, note

SECONDS = 10.0
"""Between two lines, and before the first."""


class Bar(Progress):
    """A bar on a terminal; elsewhere a line every ten seconds."""

    def __init__(self, *columns: ProgressColumn) -> None:
        super().__init__(*columns, console=err, transient=True, disable=not err.is_terminal)
        self._said = time.perf_counter()

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """As `Progress.update`, which `advance` does not call."""
        super().update(task_id, **changes)
        self._say(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        super().advance(task_id, advance)
        self._say(task_id)

    def _say(self, task_id: TaskID) -> None:
        now = time.perf_counter()
        if self.console.is_terminal or now - self._said < SECONDS:
            return
        self._said, task = now, next(task for task in self.tasks if task.id == task_id)
        of = "" if task.total is None else f" of {task.total:g}"
        note(f"{task.description}: {task.completed:g}{of}")


def progress_bar() -> Progress:
    """How many of how many."""
    return _bar(MofNCompleteColumn(), TimeElapsedColumn())


def percentage_bar() -> Progress:
    """How much of a whole."""
    return _bar(TaskProgressColumn(), TimeElapsedColumn())


def remaining_bar() -> Progress:
    """How many of how many, and how long the rest will take."""
    return _bar(
        MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()
    )


def stages_of(progress: Progress, stages: Sequence[str]) -> Callable[[str], None]:
    """A bar of what is done in stages, and what moves it on as each begins."""
    task = progress.add_task(stages[0], total=len(stages))
    begun: list[str] = []

    def begin(stage: str) -> None:
        progress.update(task, description=stage, completed=len(begun))
        begun.append(stage)

    return begin


def _bar(*columns: ProgressColumn) -> Progress:
    return Bar(TextColumn("{task.description}"), BarColumn(), *columns)


class ImageBar(Bar):
    """A bar for what takes hours: images are listed, and then `doing` comes to them.

    Attributes:
        rate: images per second since the first call of `done`; those done by then do not count.
    """

    def __init__(self, doing: str) -> None:
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self.rate = 0.0
        self._doing = doing
        self._begin: tuple[float, int] | None = None
        self._images = self.add_task("listing", total=None, rate="")

    def listed(self, images: int) -> None:
        self.update(self._images, completed=images)

    def done(self, images: int, total: int) -> None:
        now = time.monotonic()
        if self._begin is None:
            self._begin = now, images
        start, before = self._begin
        self.rate = (images - before) / (now - start) if now > start else 0.0
        rate = f"{self.rate:.1f} images/s" if self.rate else "starting"
        self.update(self._images, description=self._doing, completed=images, total=total, rate=rate)
