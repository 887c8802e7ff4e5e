"""How long callables take: one alone, or several compared fairly."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

_PAUSE = 0.01


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
    """How long callables take, timed against each other as by `rounds`."""
    timed = rounds(callables, repeats, warmup, progress)
    return {name: timing_of(samples) for name, samples in timed.items()}


def rounds(
    callables: Mapping[str, Callable[[], object]],
    repeats: int,
    warmup: int,
    progress: Callable[[int, int], object] | None = None,
) -> dict[str, list[float]]:
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

    Returns:
        The seconds of each, round by round.

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
            seconds[name].append(_seconds(callables[name]))
        if progress is not None:
            progress(done, warmup + repeats)
    return {name: samples[warmup:] for name, samples in seconds.items()}


def timing_of(samples: Sequence[float]) -> Timing:
    """The figures of some calls, in seconds."""
    half, p95 = np.quantile(samples, (0.5, 0.95))
    return Timing(float(half), float(p95), min(samples), len(samples))


def ratio(samples: Sequence[float], to: Sequence[float]) -> float:
    """The median of how many times as long the one took as the other in the same round.

    What slows a whole round down, as a busy machine does, is in both.
    """
    return median(a / b for a, b in zip(samples, to, strict=True))


def median_seconds(call: Callable[[], object], runs: int) -> float:
    """The median of `runs` calls, after one that does not count."""
    call()
    return median(_seconds(call) for _ in range(runs))


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
