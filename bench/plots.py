"""Plots of measured curves, by matplotlib."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # files only, no window

from matplotlib import pyplot
from matplotlib.patches import Patch

from onnxplain.bench.suite.record import Key, seconds, timed, where

ONNXPLAIN, PYTORCH, PEERS, FORWARD = "#b5361c", "#4a6fa5", "#8a8a8a", "#d9b44a"
"""Colours: explain graphs, PyTorch's, other packages', forward passes."""


def plot_latencies(record: Mapping[str, Any], path: Path) -> None:
    """A bar for each candidate of one network and batch, the fastest on top."""
    rows = timed(record)[::-1]
    figure, axes = pyplot.subplots(figsize=(8, 0.6 + 0.26 * len(rows)), layout="constrained")
    names = [f"{row['kind']}, {row['name']}" for row in rows]
    medians = [row["median"] * 1e3 for row in rows]
    tails = [(row["p95"] - row["median"]) * 1e3 for row in rows]
    none = [0.0] * len(rows)
    axes.barh(
        names, medians, xerr=[none, tails], color=[_colour(row) for row in rows], ecolor="#00000055"
    )
    axes.set(xscale="log", xlabel="milliseconds: the median, and a line to the 95th percentile")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_title(where(record), loc="left")
    handles = [Patch(color=colour) for colour in (ONNXPLAIN, PYTORCH, PEERS, FORWARD)]
    labels = ["onnxplain", "PyTorch", "other packages' explanations", "forward passes"]
    axes.legend(handles, labels, frameon=False, fontsize=9)
    axes.grid(axis="x", alpha=0.25)
    axes.tick_params(axis="y", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def plot_costs(measured: Mapping[str, Any], path: Path) -> None:
    """Explain ÷ forward on the same engine, for each network, above the floor of 2."""
    records = [r for r in measured["records"] if r["batch"] == measured["records"][0]["batch"]]
    engines = _engines(records[0])
    figure, axes = pyplot.subplots(figsize=(8, 4), layout="constrained")
    width = 0.8 / len(engines)
    for i, engine in enumerate(engines):
        at = [x + (i - (len(engines) - 1) / 2) * width for x in range(len(records))]
        heights = [_seconds(r, "explain", engine) / _seconds(r, "forward", engine) for r in records]
        bars = axes.bar(at, heights, width * 0.92, label=engine, color=_SHADES[i % len(_SHADES)])
        axes.bar_label(bars, fmt="%.2f", fontsize=7)
    floor = "2.0: the multiply-adds"
    axes.axhline(2, color="#1a1a1a", linewidth=1, linestyle="--", label=floor)
    axes.set_xticks(range(len(records)), [r["network"] for r in records], fontsize=8)
    axes.set_ylabel("explain ÷ forward, same engine")
    axes.legend(frameon=False, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def plot_throughput(measured: Mapping[str, Any], network: str, path: Path) -> None:
    """Explanations per second against the batch."""
    records = [r for r in measured["records"] if r["network"] == network]
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    batches = [r["batch"] for r in records]
    for i, engine in enumerate([*_engines(records[0]), "PyTorch eager"]):
        rates = [r["batch"] / _seconds(r, "explain", engine) for r in records]
        axes.plot(batches, rates, "o-", label=engine, color=[*_SHADES[:3], PYTORCH][i % 4])
    axes.set(xlabel="images per run", ylabel="explanations per second", title=network)
    axes.set_xscale("log", base=2)
    axes.set_xticks(batches, map(str, batches))
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=9)
    _save(figure, path)


def plot_targets(measured: Mapping[str, Any], path: Path) -> None:
    """What K explanations of an image cost, in explanations, against (1 + K) ÷ 2."""
    records = [r for r in measured["records"] if r["batch"] == measured["records"][0]["batch"]]
    counts = sorted(
        {
            int(r["kind"].partition("=")[2])
            for one in records
            for r in one["rows"]
            if "=" in r["kind"]
        }
    )
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    engine = _engines(records[0])[0]
    for record in records:
        one = _seconds(record, "explain", engine)
        costs = [1.0, *(_seconds(record, f"explain K={K}", engine) / one for K in counts)]
        axes.plot([1, *counts], costs, "o-", label=record["network"], alpha=0.8)
    floor = [(1 + K) / 2 for K in (1, *counts)]
    axes.plot(
        [1, *counts], floor, "--", color="#1a1a1a", label="(1 + K) ÷ 2: one forward, K backward"
    )
    axes.plot([1, *counts], [1, *counts], ":", color="#8a8a8a", label="K explanations one by one")
    axes.set(xlabel="K targets", ylabel=f"÷ one target ({engine})")
    axes.set_xticks([1, *counts])
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8)
    _save(figure, path)


_SHADES = ("#b5361c", "#e07b5a", "#7a1f0e", "#f0b49e", "#c9572f", "#5a1508")


def plot_losses(measured: Mapping[str, Any], path: Path) -> None:
    """The loss of a feature visualisation over its steps, one engine's curve over the other's."""
    records = measured["records"]
    figure, axes = pyplot.subplots(
        1, len(records), figsize=(3.4 * len(records), 2.8), squeeze=False
    )
    for axis, record in zip(axes[0], records, strict=True):
        for number, row in enumerate(record["rows"]):
            axis.plot(row["loss"], label=row["name"], lw=4.5 - number, alpha=0.8)
        axis.set(yscale="log", xlabel="step")
        axis.set_title(f"{record['network']}, {record['neuron']}", fontsize=9)
    axes[0][0].set_ylabel("loss")
    axes[0][0].legend(fontsize=8)
    _save(figure, path)


def _engines(record: Mapping[str, Any]) -> list[str]:
    """The explain graphs' engines that have both a forward pass and an explanation."""
    ran = seconds(record)
    return [name for kind, name in sorted(ran) if kind == "forward" and _both(ran, name)]


def _both(ran: Mapping[Key, float], name: str) -> bool:
    return ("explain", name) in ran and not name.startswith("PyTorch")


def _seconds(record: Mapping[str, Any], kind: str, name: str) -> float:
    return seconds(record).get((kind, name), float("nan"))


def _colour(row: Mapping[str, Any]) -> str:
    if row["kind"] == "forward":
        return FORWARD
    return {"onnxplain": ONNXPLAIN, "PyTorch": PYTORCH}.get(row["by"], PEERS)


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
