"""The figures in the README and the documentation are those that were measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from onnxplain.bench.readme import PAGES, bench_page, main
from onnxplain.bench.suite.ratios import ratios

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results"
GPU = (RESULTS / "gpu.json").exists()
SHOWN = [(page, name) for page, names in PAGES.items() for name in names if GPU or name != "gpu"]


@pytest.mark.parametrize(("page", "name"), SHOWN)
def test_a_page_shows_the_committed_results(page: str, name: str) -> None:
    result = json.loads((RESULTS / f"{name}.json").read_text())
    text = (ROOT / page).read_text()
    assert f"<!-- {name} -->\n{PAGES[page][name](result)}\n<!-- /{name} -->" in text


@pytest.mark.skipif(GPU, reason="a GPU was measured")
def test_the_readme_says_that_a_gpus_figures_are_pending_while_they_are() -> None:
    assert "<!-- gpu -->\n**Pending**" in (ROOT / "README.md").read_text()


def test_the_readme_is_read_in_one_go() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


def test_the_page_of_the_benchmark_shows_the_committed_results() -> None:
    result = json.loads((ROOT / "bench" / "results" / "bench.json").read_text())
    assert (ROOT / "docs" / "bench.md").read_text() == bench_page(result)


def test_figures_are_put_between_the_marks(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- demo -->\nold\n<!-- /demo -->\nafter\n")
    result = ROOT / "bench" / "results" / "demo.json"
    main(str(result), str(readme))
    table = PAGES["README.md"]["demo"](json.loads(result.read_text()))
    expected = f"before\n<!-- demo -->\n{table}\n<!-- /demo -->\nafter\n"
    assert readme.read_text() == expected


@pytest.mark.parametrize("text", ["nothing", "<!-- signal -->\nold\n<!-- /signal -->\n"])
def test_a_page_without_the_results_marks_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "README.md").write_text(text)
    name = "signal" if "signal" in text else "demo"  # the README shows no signal
    with pytest.raises(SystemExit, match="has no"):
        main(str(RESULTS / f"{name}.json"), str(tmp_path / "README.md"))


def test_what_is_said_of_the_smallest_network_is_what_was_measured() -> None:
    bench, demo, kernels = (
        json.loads((RESULTS / f"{name}.json").read_text()) for name in ("bench", "demo", "kernels")
    )
    name = "efficientnet-lite0, batch 1, cpu float32: explain ÷ forward"
    times = demo["seconds, batch 1"]
    of_demo = times["explain, ONNX Runtime"]["median"] / times["forward, ONNX Runtime"]["median"]
    forward = next(
        row["median"]
        for record in bench["records"]
        if (record["network"], record["batch"]) == ("efficientnet-lite0", 1)
        for row in record["rows"]
        if (row["kind"], row["name"]) == ("forward", "cpu float32")
    )
    said = " ".join((ROOT / "docs" / "speed.md").read_text().split())
    assert f"at a batch of 1 is {ratios(bench)[name]:.1f} in the table above" in said
    assert f"a forward pass took {forward * 1e3:.0f} ms" in said
    assert f"{of_demo:.1f} in the [demo's]" in said
    assert f"{ratios(kernels)[name]:.1f} on [one thread]" in said
