"""The benchmark measures what it says, and its claims are checked against earlier ones."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from onnxplain.bench import plots
from onnxplain.bench.readme import bench_table, profile_tables
from onnxplain.bench.suite import measure, profile
from onnxplain.bench.suite.measure import Scope
from onnxplain.bench.suite.ratios import ratios, worse
from onnxplain.bench.suite.suite import Plan, suite
from onnxplain.cli import app
from onnxplain.errors import InputError

pytestmark = pytest.mark.xdist_group("suite")  # what they share takes long to make


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    """One network, one round of everything but compiled candidates and peers."""
    path = tmp_path_factory.mktemp("bench") / "bench.json"
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(measure, "WARMUP", 0)
    plan = Plan(["efficientnet-lite0"], (1, 2), 1, Scope((1, 3), False, False), True, 1)
    found = suite(plan, path, lambda what, done, total: None)
    monkeypatch.undo()
    assert json.loads(path.read_text()) == found
    return found


def rows(results, batch):
    record = next(r for r in results["records"] if r["batch"] == batch)
    return {(row["kind"], row["name"]): row for row in record["rows"]}


def test_every_engine_is_timed_forward_and_explaining(results):
    found = rows(results, 1)
    for engine in ("cpu float32", "openvino float32"):
        for kind in ("forward", "explain", "explain K=3"):
            assert found[kind, engine]["median"] > 0
    assert {("forward", "PyTorch eager"), ("explain", "PyTorch eager")} <= set(found)
    assert not any("problem" in row for row in found.values())


def test_parity_stands_beside_every_explanation(results):
    for batch in (1, 2):
        explained = [row for (kind, _), row in rows(results, batch).items() if kind == "explain"]
        assert all(row["cosine"] >= 0.99 for row in explained if row["by"] == "onnxplain")
        exact = [row for row in explained if "bfloat16" not in row["name"]]
        assert min(row["cosine"] for row in exact) >= 0.99999


def test_memory_is_that_of_a_process_of_its_own(results):
    """PyTorch alone holds more than our whole process."""
    found = rows(results, 1)
    graph, eager = (found["explain", n]["memory_bytes"] for n in ("cpu float32", "PyTorch eager"))
    assert 2**26 < graph < eager


def test_the_ratios_are_of_times_in_one_run(results):
    found, times = ratios(results), rows(results, 1)
    where = "efficientnet-lite0, batch 1, cpu float32"
    explain, forward = (times[kind, "cpu float32"]["median"] for kind in ("explain", "forward"))
    eager = times["explain", "PyTorch eager"]["median"]
    several = times["explain K=3", "cpu float32"]["median"]
    assert found[f"{where}: explain ÷ forward"] == explain / forward
    assert found[f"{where}: explain ÷ PyTorch eager's"] == explain / eager
    assert found[f"{where}: explain K=3 ÷ explain"] == several / explain


def test_a_ratio_that_got_worse_is_named(results):
    slower = copy.deepcopy(results)
    row = next(r for r in slower["records"][0]["rows"] if r["kind"] == "explain")
    row["median"] *= 2
    sentences = worse(slower, results)
    assert any(
        "explain ÷ forward" in sentence and row["name"] in sentence for sentence in sentences
    )
    assert worse(results, results) == []

    faster_machine = copy.deepcopy(results)
    for record in faster_machine["records"]:
        for timed in record["rows"]:
            timed["median"] /= 10
    assert worse(faster_machine, results) == []


def test_a_way_that_fails_or_strays_is_named(results):
    broken = copy.deepcopy(results)
    strayed, failed = [r for r in broken["records"][0]["rows"] if r["kind"] == "explain"][:2]
    strayed["cosine"] = 0.7
    del failed["median"]
    failed["problem"] = "it broke"
    sentences = worse(broken, results)
    assert any(strayed["name"] in s and "0.700000" in s for s in sentences)
    assert any(failed["name"] in s and "it broke" in s for s in sentences)


def test_results_of_other_networks_cannot_be_compared(results):
    other = copy.deepcopy(results)
    for record in other["records"]:
        record["network"] = "another"
    with pytest.raises(InputError, match="none of these"):
        worse(results, other)


def test_the_memory_of_a_process_is_not_its_parents():
    held = np.ones(2**26)  # 512 MiB
    child = "from onnxplain.bench.suite.memory import high_water; print(high_water())"
    found = subprocess.run([sys.executable, "-c", child], capture_output=True, check=True)
    assert int(found.stdout) < held.nbytes


def test_tables_and_plots_are_made_of_it(results, tmp_path):
    table = bench_table(results)
    assert "efficientnet-lite0, batch 2" in table
    plots.plot_latencies(results["records"][0], tmp_path / "latencies.png")
    plots.plot_costs(results, tmp_path / "costs.png")
    plots.plot_throughput(results, "efficientnet-lite0", tmp_path / "throughput.png")
    plots.plot_targets(results, tmp_path / "targets.png")
    assert all(file.stat().st_size > 10_000 for file in tmp_path.iterdir())


def test_a_profile_is_written_and_becomes_a_table(monkeypatch, tmp_path):
    counted = SimpleNamespace(multiply_adds={"forward": 5, "explain": 10})
    times = {("Conv", "forward"): 2.0, ("Conv", "backward"): 3.0, ("Mul", "backward"): 0.5}
    times["TopK", "backward"] = 0.01
    one = profile.Profile("net", "cpu float32", times, counted, {"Conv": 1.5, "Gemm": 0.5})
    elsewhere = profile.Profile("net", "openvino float32", times, counted)
    monkeypatch.setattr(profile, "profiled", lambda network, threads: [one, elsewhere])
    path = tmp_path / "profile.json"
    result = CliRunner().invoke(app, ["bench", "resnet18", "--profile", "--out", str(path)])
    assert result.exit_code == 0, result.output
    written = json.loads(path.read_text())
    assert written["profiles"][0]["explain"]["Conv"] == {"forward": 2.0, "backward": 3.0}
    table = profile_tables(written)
    assert "| Conv | 1.50 | 5.00 |" in table
    assert "| the rest | 0.00 | 0.01 |" in table
    assert "| ÷ forward |  | 2.75 |" in table  # (ms) 5.51 ÷ 2, and OpenVINO has none to divide by


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--batches", "0"], "--batches takes numbers"),
        (["--targets", "one"], "--targets takes numbers"),
        (["--device", "tpu"], "cpu or cuda"),
        (["--check", "nowhere.json"], "cannot read results"),
        (["--check", __file__], "cannot read results"),
        (["--out", "nowhere/bench.json"], "no folder"),
        (["--profile", "--quick"], "--profile goes"),
        (["resnet5"], "resnet50"),
    ],
)
def test_what_cannot_be_measured_is_said_first(arguments, said):
    result = CliRunner().invoke(app, ["bench", *arguments])
    assert result.exit_code in (3, 4)
    assert said in " ".join(result.stderr.split())
