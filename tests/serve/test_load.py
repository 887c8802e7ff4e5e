"""The load scripts, briefly; the modules of `onnxplain.bench` themselves are the long runs."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from onnxplain.bench import mixed_load
from onnxplain.bench.readme import serving_table
from onnxplain.bench.serving import RESULT, holds, measure


@pytest.mark.parametrize(
    ("keys", "wrong"),
    [
        (("many", "statuses"), {"200": 9, "500": 1}),
        (("one at a time", "lost"), 1),
        (("one at a time, a service set for it", "max_error"), 1e-4),
        (("many ÷ one at a time",), 1.4),
        (("memory_bytes", "last quarter"), 10**10),
        (("SIGTERM", "exit_status"), 1),
        (("SIGTERM", "answered by its log"), 0),
    ],
)
def test_what_was_measured_holds_and_worse_would_not(keys: tuple[str, ...], wrong: object) -> None:
    measured = json.loads(RESULT.read_text("utf-8"))
    assert holds(measured)
    part = worse = copy.deepcopy(measured)
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = wrong
    assert not holds(worse)


@pytest.mark.sweep
def test_under_load_every_answer_is_the_runtimes_and_none_is_lost(lite0: Path) -> None:
    measured = measure(lite0, clients=50, seconds=10)
    for name in ("one at a time", "many", "SIGTERM"):
        assert set(measured[name]["statuses"]) <= {"200", "503"}
        assert measured[name]["lost"] == 0
        assert measured[name]["max_error"] <= 1e-5
    ended = measured["SIGTERM"]
    assert ended["exit_status"] == 0
    assert ended["answered by its log"] == ended["statuses"]["200"]
    assert "50 clients" in serving_table(measured)


@pytest.mark.parametrize(
    ("keys", "wrong", "said"),
    [
        (("attacked", "honest", "statuses"), {"200": 9, "500": 1}, "honest clients, attacked"),
        (("attacked", "honest", "lost"), 1, "honest clients, attacked"),
        (("alone", "max_error"), 1e-4, "numbers are 0.0001 off"),
        (("attacked", "malformed", "500"), 1, "malformed clients"),
        (("attacked", "slow", "200"), 1, "slow clients"),
        (("attacked", "memory_bytes", "last quarter"), 10**10, "memory grows"),
        (("p99, attacked ÷ alone",), 3.1, "3.10 × as long"),
        (("ready at the end",), False, "not ready"),
    ],
)
def test_among_clients_of_every_kind_too(keys: tuple[str, ...], wrong: object, said: str) -> None:
    measured = json.loads(mixed_load.RESULT.read_text("utf-8"))
    assert mixed_load.troubles(measured) == []
    part = worse = copy.deepcopy(measured)
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = wrong
    (found,) = mixed_load.troubles(worse)
    assert said in found


@pytest.mark.sweep
def test_an_attack(lite0: Path) -> None:
    """What is 4xx or 503, right, and flat; how long honest clients wait needs a quiet machine."""
    measured = mixed_load.measure(lite0, clients=50, seconds=30)
    measured["p99, attacked ÷ alone"] = 1.0
    assert mixed_load.troubles(measured) == []
