"""Plots of measured times, by matplotlib.

One look for all: dots, with a line for the range where one was measured, and no bar on a
logarithmic axis, whose length says nothing; names beside what they name; type that is read at half
the width; and a ground of its own, so that a dark page shows the plot as a light one does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # files only, no window

from matplotlib import pyplot
from matplotlib.axes import Axes

from onnxplain.bench.suite.record import Key, Record, seconds, timed, where

ONNXPLAIN, PYTORCH, PEERS, FORWARD = "#b5361c", "#2f6aa8", "#6b6b6b", "#a87700"
"""Colours: explain graphs, PyTorch's, other packages', forward passes."""

WHO = {
    "onnxplain": ONNXPLAIN,
    "PyTorch": PYTORCH,
    "other packages": PEERS,
    "forward passes": FORWARD,
}
ENGINES = ((ONNXPLAIN, "o"), ("#7d3f98", "s"), (FORWARD, "D"), (PYTORCH, "^"))
"""Colour and mark of each engine of the explain graphs, in their order, and of PyTorch."""

GROUND = "#fcfbf9"
STYLE: dict[Any, Any] = {
    "figure.facecolor": GROUND,
    "axes.facecolor": GROUND,
    "savefig.facecolor": GROUND,
    "font.size": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": "#8a8a8a",
    "ytick.left": False,
    "grid.color": "#e2dfd9",
    "axes.axisbelow": True,
}
ROW = 0.34
"""Inches of a row."""


def plot_latencies(record: Record, path: Path) -> None:
    """A dot for each candidate of one network and batch, the fastest on top."""
    rows = timed(record)
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(8.5, 1.2 + ROW * len(rows)), layout="constrained")
        for at, row in enumerate(rows):
            colour = _colour(row)
            low, middle, high = (row[key] * 1e3 for key in ("minimum", "median", "p95"))
            axes.plot([low, high], [at, at], color=colour, lw=2.5, alpha=0.4)
            axes.plot(middle, at, "o", color=colour, ms=8)
            axes.annotate(
                f"{middle:,.0f}",
                (high, at),
                (7, 0),
                textcoords="offset points",
                va="center",
                color=colour,
                fontsize=11,
            )
        axes.set_yticks(range(len(rows)), [_named(row) for row in rows], fontsize=11)
        for label, row in zip(axes.get_yticklabels(), rows, strict=True):
            label.set_color(_colour(row))
        axes.set_xscale("log")
        axes.set_xlabel("milliseconds: median, from the least to the 95th percentile", loc="right")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_ylim(len(rows) - 0.4, -1.6)
        axes.margins(x=0.12)
        axes.grid(axis="x")
        for i, (who, colour) in enumerate(WHO.items()):
            axes.text(
                -0.6 + 0.38 * i, 1.0, who, color=colour, transform=axes.transAxes, weight="bold"
            )
        figure.suptitle(f"{where(record)}: what explains it, and how fast")
        _save(figure, path)


def plot_costs(measured: Mapping[str, Any], path: Path) -> None:
    """Explain ÷ forward on the same engine, for each network, beside the floor of 2."""
    records = _first_batch(measured)
    engines = _engines(records[0])
    dots = [
        [
            [_ratio(record, "explain", "forward", engine, key) for key in ("median", "minimum")]
            for engine in engines
        ]
        for record in records
    ]
    marks = {2.0: "the multiply-adds"}
    what = "explain ÷ forward, same engine: of the medians, and a line to that of the least times"
    _rows_of_dots(records, engines, dots, marks, what, path)


def plot_targets(measured: Mapping[str, Any], path: Path) -> None:
    """What the most explanations of an image cost, in explanations, against (1 + K) ÷ 2."""
    records = _first_batch(measured)
    engines = _engines(records[0])
    most = max(
        int(row["kind"].partition("=")[2])
        for record in records
        for row in record["rows"]
        if "=" in row["kind"]
    )
    dots = [
        [
            [
                _ratio(record, f"explain K={most}", "explain", engine, key)
                for key in ("median", "minimum")
            ]
            for engine in engines
        ]
        for record in records
    ]
    marks = {(1 + most) / 2: f"1 forward, {most} backward", float(most): "one by one"}
    what = f"{most} targets ÷ one: of the medians, and a line to that of the least times"
    _rows_of_dots(records, engines, dots, marks, what, path)


def _rows_of_dots(
    records: Sequence[Record],
    engines: Sequence[str],
    dots: Sequence[Sequence[Sequence[float]]],
    marks: Mapping[float, str],
    what: str,
    path: Path,
) -> None:
    """A row for each network, a dot for each engine, and lines at what is expected.

    Args:
        dots: of each network and engine, the value and the other end of its range.
    """
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(
            figsize=(8.5, 1.5 + 2 * ROW * len(records)), layout="constrained"
        )
        lanes = [(i - (len(engines) - 1) / 2) * 0.22 for i in range(len(engines))]
        for at, row in enumerate(dots):
            for lane, (value, other), (colour, mark) in zip(lanes, row, ENGINES, strict=False):
                y = at + lane
                axes.plot([value, other], [y, y], color=colour, lw=2.5, alpha=0.4)
                axes.plot(value, y, mark, color=colour, ms=7)
                axes.annotate(
                    f"{value:.2f}",
                    (max(value, other), y),
                    (8, 0),
                    textcoords="offset points",
                    va="center",
                    color=colour,
                    fontsize=10,
                    bbox={"facecolor": GROUND, "edgecolor": "none", "pad": 0.6},
                )
        for x, name in marks.items():
            axes.axvline(x, color="#1a1a1a", lw=1, ls=(0, (4, 3)), zorder=0)
            axes.text(x, -0.95, f"{x:g}: {name}", ha="center", va="bottom", fontsize=11)
        axes.set_yticks(range(len(records)), [record["network"] for record in records])
        axes.set_ylim(len(records) - 0.4, -0.9)
        axes.set_xlabel(what, fontsize=11)
        axes.margins(x=0.08)
        axes.grid(axis="x")
        _legend(axes, engines)
        _save(figure, path)


def plot_throughput(measured: Mapping[str, Any], network: str, path: Path) -> None:
    """Explanations per second against the batch."""
    records = [r for r in measured["records"] if r["network"] == network]
    names = [*_engines(records[0]), "PyTorch eager"]
    batches = [r["batch"] for r in records]
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(8.5, 4.2), layout="constrained")
        for name, (colour, mark) in zip(names, ENGINES, strict=False):
            rates = [r["batch"] / _seconds(r, "explain", name) for r in records]
            axes.plot(batches, rates, f"{mark}-", color=colour, ms=7, lw=2)
            axes.annotate(
                name,
                (batches[-1], rates[-1]),
                (10, 0),
                textcoords="offset points",
                va="center",
                color=colour,
            )
        axes.set(xlabel="images per run", ylabel=f"explanations of {network} per second")
        axes.set_xscale("log", base=2)
        axes.set_xticks(batches, map(str, batches))
        axes.set_ylim(bottom=0)
        axes.grid(axis="y")
        _save(figure, path)


def plot_losses(measured: Mapping[str, Any], path: Path) -> None:
    """The loss of a feature visualisation over its steps, one engine's curve over the other's."""
    records = measured["records"]
    columns = 2
    with pyplot.rc_context(STYLE):
        figure, grid = pyplot.subplots(
            -(-len(records) // columns),
            columns,
            figsize=(8.5, 2.9 * -(-len(records) // columns)),
            squeeze=False,
            layout="constrained",
        )
        for axis, record in zip(grid.flat, records, strict=False):
            names = [row["name"] for row in record["rows"]]
            for number, (row, (colour, _)) in enumerate(zip(record["rows"], ENGINES, strict=False)):
                axis.plot(row["loss"], color=colour, lw=6 - 1.6 * number)
            axis.set(yscale="log", xlabel="step")
            axis.set_title(f"{record['network']}, {record['neuron']}", loc="left", fontsize=12)
        for row in grid:
            row[0].set_ylabel("loss")
        for i, (name, (colour, _)) in enumerate(zip(names, ENGINES, strict=False)):
            grid[0][0].text(
                0.97, 0.93 - 0.11 * i, name, color=colour, ha="right", va="top",
                transform=grid[0][0].transAxes, fontsize=11,
            )  # fmt: skip
        _save(figure, path)


def _legend(axes: Axes, engines: Sequence[str]) -> None:
    """The engines' names in their colours, above the plot."""
    for i, (name, (colour, mark)) in enumerate(zip(engines, ENGINES, strict=False)):
        x = 0.02 + 0.3 * i
        axes.plot(
            x - 0.012, 1.115, mark, color=colour, ms=7, transform=axes.transAxes, clip_on=False
        )
        axes.text(x + 0.01, 1.1, name, color=colour, transform=axes.transAxes)


def _first_batch(measured: Mapping[str, Any]) -> list[Record]:
    first = measured["records"][0]["batch"]
    return [record for record in measured["records"] if record["batch"] == first]


def _engines(record: Record) -> list[str]:
    """The explain graphs' engines that have both a forward pass and an explanation."""
    ran = seconds(record)
    return [name for kind, name in sorted(ran) if kind == "forward" and _both(ran, name)]


def _both(ran: Mapping[Key, float], name: str) -> bool:
    return ("explain", name) in ran and not name.startswith("PyTorch")


def _ratio(record: Record, above: str, below: str, engine: str, key: str) -> float:
    found = {(row["kind"], row["name"]): row[key] for row in timed(record)}
    return float(found.get((above, engine), float("nan")) / found[below, engine])


def _seconds(record: Record, kind: str, name: str) -> float:
    return seconds(record).get((kind, name), float("nan"))


def _colour(row: Mapping[str, Any]) -> str:
    if row["kind"] == "forward":
        return FORWARD
    return {"onnxplain": ONNXPLAIN, "PyTorch": PYTORCH}.get(row["by"], PEERS)


def _named(row: Mapping[str, Any]) -> str:
    """What a candidate is, in as few words as tell it from the others."""
    name = row["name"].replace(" autocast", "").removesuffix(", Grad-CAM")
    if row["by"] not in ("onnxplain", "PyTorch"):
        return name
    kinds = {"forward": "forward", "map": "Grad-CAM", "explain": "explain"}
    return (
        f"{kinds.get(row['kind'], row['kind'].replace('explain K=', 'explain, targets: '))}, {name}"
    )


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
