"""A package in an interpreter of its own, asked for one call after another."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Worker:
    """A script that says what it runs on, then answers a line, a call's name, with its seconds.

    Attributes:
        runtime: what it said.
        seconds: of each call by name, by the script's clock, so without those of asking for it.
    """

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process, self._log = process, log
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)
        self.runtime = self._answer()

    def __call__(self, name: str) -> None:
        """Have one call made.

        Raises:
            RuntimeError: the script ended, with what it said last.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(f"{name}\n")
        self._process.stdin.flush()
        self.seconds[name].append(float(self._answer()))

    def _answer(self) -> str:
        assert self._process.stdout is not None
        if line := self._process.stdout.readline():
            return line.strip()
        self._process.wait()
        raise RuntimeError(self._log.read_text()[-2000:])


@contextmanager
def working(python: Path, script: Path, job: Path) -> Iterator[Worker]:
    """A script at work on a job; at the end it is let end, and writes what it has.

    Raises:
        RuntimeError: it ended before it was ready, with what it said last.
    """
    log = job.with_suffix(".log")
    pipe = subprocess.PIPE
    with (
        log.open("w") as said,
        subprocess.Popen(
            [python, "-P", script, job], stdin=pipe, stdout=pipe, stderr=said, text=True
        ) as process,
    ):
        yield Worker(process, log)
