"""The load script, briefly; `python -m onnxplain.bench.serving` is the long run."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxplain.bench.readme import serving_table
from onnxplain.bench.serving import measure


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
