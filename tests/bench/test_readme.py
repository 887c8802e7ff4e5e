"""The figures in the README are those that were measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from onnxplain.bench.readme import COSTS, DERIVATIVES, PARITY, TABLES, bench_page, main

ROOT = Path(__file__).parents[2]


RESULTS = ROOT / "bench" / "results"
GPU = (RESULTS / "gpu.json").exists()


@pytest.mark.parametrize("name", [name for name in TABLES if GPU or name != "gpu"])
def test_the_readme_shows_the_committed_results(name: str) -> None:
    result = json.loads((RESULTS / f"{name}.json").read_text())
    text = (ROOT / "README.md").read_text()
    assert f"<!-- {name} -->\n{TABLES[name](result)}\n<!-- /{name} -->" in text


@pytest.mark.parametrize("name", COSTS)
def test_the_page_of_costs_shows_the_committed_results(name: str) -> None:
    result = json.loads((RESULTS / f"{name}.json").read_text())
    text = (ROOT / "docs" / "costs.md").read_text()
    assert f"<!-- {name} -->\n{COSTS[name](result)}\n<!-- /{name} -->" in text


@pytest.mark.parametrize("name", DERIVATIVES)
def test_the_page_of_derivatives_shows_the_committed_results(name: str) -> None:
    result = json.loads((RESULTS / f"{name}.json").read_text())
    text = (ROOT / "docs" / "differentiate.md").read_text()
    assert f"<!-- {name} -->\n{DERIVATIVES[name](result)}\n<!-- /{name} -->" in text


@pytest.mark.skipif(GPU, reason="a GPU was measured")
def test_the_readme_says_that_a_gpus_figures_are_pending_while_they_are() -> None:
    assert "<!-- gpu -->\n**Pending**" in (ROOT / "README.md").read_text()


def test_the_page_of_the_benchmark_shows_the_committed_results() -> None:
    result = json.loads((ROOT / "bench" / "results" / "bench.json").read_text())
    assert (ROOT / "docs" / "bench.md").read_text() == bench_page(result)


def test_figures_are_put_between_the_marks(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- demo -->\nold\n<!-- /demo -->\nafter\n")
    result = ROOT / "bench" / "results" / "demo.json"
    main(str(result), str(readme))
    table = TABLES["demo"](json.loads(result.read_text()))
    expected = f"before\n<!-- demo -->\n{table}\n<!-- /demo -->\nafter\n"
    assert readme.read_text() == expected


def test_a_readme_without_marks_is_told(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("nothing")
    with pytest.raises(SystemExit, match="has no"):
        main(str(ROOT / "bench" / "results" / "demo.json"), str(tmp_path / "README.md"))


@pytest.mark.parametrize("name", PARITY)
def test_the_page_of_parity_shows_the_committed_results(name: str) -> None:
    result = json.loads((RESULTS / f"{name}.json").read_text())
    text = (ROOT / "docs" / "parity.md").read_text()
    assert f"<!-- {name} -->\n{PARITY[name](result)}\n<!-- /{name} -->" in text
