"""Other packages that differentiate ONNX files, and what was measured of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from onnxplain.bench.rivals.__main__ import RESULTS
from onnxplain.bench.rivals.gradients import measure
from onnxplain.bench.rivals.networks import NETWORKS
from onnxplain.bench.rivals.packages import NAMES
from onnxplain.bench.rivals.probes import PROBES, RIGHT, probe
from onnxplain.bench.rivals.table import rivals_tables

OURS, ONNX_AD = NAMES


def test_the_committed_results_are_of_all_that_is_measured() -> None:
    found = json.loads(RESULTS.read_text())
    assert [record["network"] for record in found["records"]] == [*NETWORKS]
    assert [*found["probes"]] == [*PROBES]
    for record in found["records"]:
        ours, other = record["rows"]
        assert ours["relative_l2"] < 1.01 * other["relative_l2"] + 1e-7, record["network"]
        assert ours["open batch"] is None
        assert ours["nodes"] < other["nodes"]
        assert ours["bytes"] < other["bytes"]
    assert {v[OURS] for n, v in found["probes"].items() if not n.startswith("loop")} == {RIGHT}


def test_the_small_graphs_are_judged_as_the_results_say(tmp_path: Path) -> None:
    pytest.importorskip("onnx_ad")
    committed = json.loads(RESULTS.read_text())["probes"]
    for name in ("convolution", "convolution, uneven padding", "slices, open batch", "LSTM"):
        assert probe(name, tmp_path) == committed[name]


def test_a_network_is_measured(tmp_path: Path) -> None:
    pytest.importorskip("onnx_ad")
    record = measure("MLP energy", tmp_path, repeats=1, threads=1)
    ours, other = record["rows"]
    assert (ours["by"], other["by"]) == NAMES
    assert max(row["relative_l2"] for row in record["rows"]) < 1e-12
    assert ours["nodes"] < other["nodes"]
    probes = {"one": {OURS: RIGHT, ONNX_AD: "refused: why"}}
    known = json.loads(RESULTS.read_text())
    assert "| one | right | refused |" in rivals_tables(
        {**known, "records": [record], "probes": probes}
    )
