"""The plots of the committed results can be read: nothing is cut off, no two words overlap."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from matplotlib.text import Text

from onnxplain.bench import plots

RESULTS = Path(__file__).parents[2] / "bench" / "results"
BENCH = json.loads((RESULTS / "bench.json").read_text())
DRAWN = {
    "latencies": lambda path: plots.plot_latencies(BENCH["records"][0], path),
    "costs": lambda path: plots.plot_costs(BENCH, path),
    "targets": lambda path: plots.plot_targets(BENCH, path),
    "throughput": lambda path: plots.plot_throughput(BENCH, "resnet50", path),
    "losses": lambda path: plots.plot_losses(
        json.loads((RESULTS / "vital_steps.json").read_text()), path
    ),
}


@pytest.mark.parametrize("name", DRAWN)
def test_words_are_within_the_plot_and_apart(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: seen.append(figure))
    DRAWN[name](tmp_path / "plot.webp")
    (figure,) = seen
    edge = figure.bbox.padded(1)
    drawn: list[Text] = []  # not all that a figure holds: ticks beyond an axis stay out
    draw = Text.draw
    monkeypatch.setattr(
        Text, "draw", lambda text, renderer: (drawn.append(text), draw(text, renderer))
    )
    figure.canvas.draw()
    drawn = [t for t in dict.fromkeys(drawn) if t.get_visible() and t.get_text().strip()]
    said = {text: text.get_window_extent().padded(-1.5) for text in drawn}
    assert len(said) > 5
    for text, box in said.items():
        assert edge.x0 <= box.x0, text
        assert edge.y0 <= box.y0, text
        assert box.x1 <= edge.x1, text
        assert box.y1 <= edge.y1, text
    for (one, a), (other, b) in combinations(said.items(), 2):
        assert not a.overlaps(b), (one, other)


def test_a_logarithmic_axis_has_no_bars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: seen.append(figure))
    plots.plot_latencies(BENCH["records"][0], tmp_path / "plot.webp")
    (axes,) = seen[0].axes
    assert axes.get_xscale() == "log"
    assert not axes.patches
    assert len(axes.get_yticklabels()) == len(
        [row for row in BENCH["records"][0]["rows"] if "median" in row]
    )
