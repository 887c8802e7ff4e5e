"""Many mutants, counted: `python -m tests.fuzz.campaign export explain --mutants 100000`.

Each is judged in a child that was forked of a process in which everything is imported, with limits
on its memory and time; a signal ends the child, not the campaign. What is interrupted goes on where
it was. A mutant alone: `--only 4711`, in this process, with the whole traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import onnx
import onnxruntime

from onnxplain.files import replacing
from onnxplain.machine import machine

from .targets import EXPLAINED, NAMES, OWN, Target, target

RESULTS = Path(__file__).resolve().parents[2] / "bench/results/fuzz.json"
SECONDS = 20
"""Of the processor, and three times as many by the clock."""
MEMORY = 2 << 30
"""Bytes, beside what the process had."""
_BATCH = 250  # mutants of a child, and between two writings
_OTHERS = 100  # kept of each target


@dataclass
class Log:
    """How the first so many mutants of a target ended; those with another end, by number."""

    mutants: int = 0
    ends: dict[str, int] = field(default_factory=dict)
    slowest_seconds: float = 0.0
    most_bytes: int = 0
    others: list[dict[str, int | str]] = field(default_factory=list)

    def add(self, number: int, end: str, seconds: float, size: int) -> None:
        self.mutants = max(self.mutants, number + 1)
        self.slowest_seconds = round(max(self.slowest_seconds, seconds), 3)
        self.most_bytes = max(self.most_bytes, size)
        if end in OWN and (seconds > SECONDS or size > MEMORY):
            end = f"{end} after {seconds:.1f} s with {size >> 20} MiB"
        kind = end if end in OWN else "another"
        self.ends = dict(sorted((Counter(self.ends) + Counter([kind])).items()))
        if end not in OWN and len(self.others) < _OTHERS:
            self.others.append({"mutant": number, "end": end[:300]})

    def forget_others(self) -> list[int]:
        """The numbers of those with another end, which are to be judged again."""
        numbers = [int(other["mutant"]) for other in self.others]
        self.ends = {kind: count for kind, count in self.ends.items() if kind in OWN}
        self.others = []
        return numbers


def judged(
    of: Target, numbers: Sequence[int], folder: Path
) -> Iterator[tuple[int, str, float, int]]:
    """Each number, how its mutant ended, seconds of the processor and bytes that it took."""
    while numbers:
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.close(reading)
            try:
                _judge(of, numbers, folder, writing)
            finally:
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as lines:
            for line in lines:
                yield tuple(json.loads(line))
                numbers = numbers[1:]
        status = os.waitpid(child, 0)[1]
        if numbers:
            number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
            end = f"signal {signal.Signals(number).name}" if number else "the process ended"
            yield numbers[0], end, 0.0, 0
            numbers = numbers[1:]


def _judge(of: Target, numbers: Sequence[int], folder: Path, to: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MEMORY // 2,) * 2)
    for number in numbers:
        before, begun = _status("VmRSS"), time.process_time()
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
        signal.setitimer(signal.ITIMER_PROF, 1.25 * SECONDS)
        signal.alarm(3 * SECONDS)
        end = of.judged(number, folder)
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        seconds, size = time.process_time() - begun, _status("VmHWM") - before
        os.write(to, (json.dumps((number, end, seconds, size)) + "\n").encode())


def _status(key: str) -> int:
    """An entry of this process's status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) << 10


def read(path: Path) -> dict[str, Log]:
    """What was found so far, by target."""
    found = json.loads(path.read_text())["targets"] if path.is_file() else {}
    return {name: Log(**found.get(name, {})) for name in NAMES}


def write(logs: dict[str, Log], path: Path) -> None:
    versions = {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}
    limits = {"seconds": SECONDS, "bytes": MEMORY}
    targets = {name: asdict(log) for name, log in logs.items()}
    found: dict[str, Any] = {"machine": machine(), **versions, "limits": limits, "targets": targets}
    with replacing(path) as beside:
        beside.write_text(json.dumps(found, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.fuzz.campaign", description=__doc__)
    parser.add_argument("targets", nargs="+", choices=NAMES)
    parser.add_argument("--mutants", type=int, default=100_000, help="Up to so many of each.")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="At the longest.")
    parser.add_argument("--again", action="store_true", help="Those with another end, again.")
    parser.add_argument("--only", type=int, help="This one alone, and say what is raised.")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # no threads before a fork
    late = time.monotonic() + given.seconds
    in_memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=in_memory) as name:
        tempfile.tempdir = name
        for of in (target(each, Path(name)) for each in given.targets):
            if given.only is not None:
                path = Path(name, "mutant.onnx")
                path.write_bytes(of.mutant(given.only))
                of.attempt(path)
                print(f"{of.name} {given.only}: {EXPLAINED}")
                continue
            _run(of, given, late, Path(name))


def _run(of: Target, given: argparse.Namespace, late: float, folder: Path) -> None:
    logs = read(given.out)
    log = logs[of.name]
    of.judged(0, folder)  # what is imported late
    gc.freeze()
    batch: Sequence[int] = log.forget_others() if given.again else []
    while batch or (log.mutants < given.mutants and time.monotonic() < late):
        batch = batch or range(log.mutants, min(log.mutants + _BATCH, given.mutants))
        for number, end, seconds, size in judged(of, batch, folder):
            log.add(number, end, seconds, size)
            if end not in OWN:
                print(f"{of.name} {number}: {end}", flush=True)
        batch = []
        write(logs, given.out)
        print(of.name, log.mutants, log.ends, flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
    sys.stdout.flush()
