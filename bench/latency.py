"""How long callables take, compared fairly, and the machine they ran on."""

from __future__ import annotations

import os
import platform
import random
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

_PAUSE = 0.01
_PACKAGES = (
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "torch",
    "captum",
    "zennit",
    "grad-cam",
)


@dataclass(frozen=True)
class Timing:
    """Wall-clock seconds of one call, over `repeats` calls."""

    median: float
    p95: float
    minimum: float
    repeats: int


def interleaved(
    callables: Mapping[str, Callable[[], object]],
    repeats: int,
    warmup: int,
    progress: Callable[[int, int], object] | None = None,
) -> dict[str, Timing]:
    """Time callables against each other, in rounds that call each of them once.

    So what changes on the machine meanwhile (heat, neighbours, clock) meets all of them alike;
    the order is shuffled each round, by a fixed seed, so that none always profits from its
    predecessor's caches; and before each there is a pause, in which the threads of the one before
    stop waiting busily for more. A callable that only queues work on a device must wait for it.

    Args:
        callables: by name.
        repeats: rounds that count, at least 1.
        warmup: rounds before them that do not.
        progress: called after each round with (rounds done, rounds in all).

    Raises:
        ValueError: repeats < 1 or warmup < 0.
    """
    if repeats < 1 or warmup < 0:
        raise ValueError(f"repeats must be ≥ 1 and warmup ≥ 0, not {repeats} and {warmup}")
    order = list(callables)
    shuffle = random.Random(0).shuffle
    seconds: dict[str, list[float]] = {name: [] for name in callables}
    for done in range(1, warmup + repeats + 1):
        shuffle(order)
        for name in order:
            time.sleep(_PAUSE)
            start = time.perf_counter()
            callables[name]()
            seconds[name].append(time.perf_counter() - start)
        if progress is not None:
            progress(done, warmup + repeats)
    return {name: _timing(samples[warmup:]) for name, samples in seconds.items()}


def _timing(samples: list[float]) -> Timing:
    median, p95 = np.quantile(samples, (0.5, 0.95))
    return Timing(float(median), float(p95), min(samples), len(samples))


def machine() -> dict[str, object]:
    """The machine and the software that a timing belongs to; ready for JSON.

    "cpu", "os", "python": text; "cores": logical ones of the machine; "threads": how many of
    them this process may run on;
    "memory_bytes": of the machine, None where the system does not tell; "versions": of the
    packages that are installed.
    """
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": threads(),
        "memory_bytes": _memory(),
        "os": platform.platform(),
        "python": platform.python_version(),
        "versions": _versions(),
    }


def threads() -> int:
    """How many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _memory() -> int | None:
    if sys.platform == "win32":
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
