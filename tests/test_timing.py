"""Timing: each round calls each callable once, warm-up rounds do not count."""

from __future__ import annotations

import json
import time

import pytest

from onnxplain.machine import machine
from onnxplain.timing import interleaved, ratio


def test_every_round_calls_each_callable_once_in_a_changing_order() -> None:
    calls: list[str] = []
    timings = interleaved(
        {name: lambda name=name: calls.append(name) for name in "abc"}, repeats=8, warmup=2
    )
    rounds = [tuple(calls[i : i + 3]) for i in range(0, len(calls), 3)]
    assert len(rounds) == 10
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert len(set(rounds)) > 1
    assert list(timings) == ["a", "b", "c"]


def test_the_order_is_the_same_in_every_session() -> None:
    def orders() -> list[str]:
        calls: list[str] = []
        interleaved({n: lambda n=n: calls.append(n) for n in "abc"}, repeats=5, warmup=0)
        return calls

    assert orders() == orders()


def test_warm_up_does_not_count() -> None:
    calls = iter(range(100))

    def slow_at_first() -> None:
        if next(calls) < 5:
            time.sleep(0.05)

    timing = interleaved({"slow at first": slow_at_first}, repeats=4, warmup=5)["slow at first"]
    assert timing.repeats == 4
    assert timing.median < 0.05
    assert timing.minimum <= timing.median <= timing.p95


def test_seconds_are_wall_clock() -> None:
    timing = interleaved({"sleep": lambda: time.sleep(0.01)}, repeats=3, warmup=0)["sleep"]
    assert timing.minimum >= 0.01


def test_a_ratio_is_taken_round_by_round() -> None:
    """Three of five rounds met a neighbour that halved the machine for all alike."""
    ours = [1.0, 2.0, 2.0, 1.0, 2.0]
    assert ratio([3.0 * seconds for seconds in ours], ours) == 3.0
    assert ratio([3.0, 3.0, 3.0], [1.0, 1.0, 30.0]) == 3.0


def test_progress_counts_rounds() -> None:
    seen: list[tuple[int, int]] = []
    interleaved({"nothing": lambda: None}, 2, 1, progress=lambda *state: seen.append(state))
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(("repeats", "warmup"), [(0, 1), (1, -1)])
def test_impossible_counts_are_refused(repeats: int, warmup: int) -> None:
    with pytest.raises(ValueError, match="repeats"):
        interleaved({"nothing": lambda: None}, repeats, warmup)


def test_the_machine_is_described_in_json() -> None:
    description = machine()
    assert {"cpu", "cores", "threads", "memory_bytes", "os", "python", "versions"} == set(
        description
    )
    assert "numpy" in json.loads(json.dumps(description))["versions"]
