"""A progress bar with a rate, for what takes hours."""

from __future__ import annotations

import time

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from onnxplain.cli.app import err


class Meter:
    """Images per second since the first call; the images that were done by then do not count."""

    def __init__(self) -> None:
        self._begin: tuple[float, int] | None = None

    def rate(self, done: int) -> float:
        now = time.monotonic()
        if self._begin is None:
            self._begin = now, done
        start, before = self._begin
        return (done - before) / (now - start) if now > start else 0.0


def rate_bar() -> Progress:
    """A bar whose tasks have a field `rate`, text."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=err,
        transient=True,
    )
