"""A study's results as plots (SVG, by matplotlib)."""

from __future__ import annotations

import base64
import io
from typing import Any

import matplotlib

matplotlib.use("Agg")  # files only, no window

import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes

from onnxplain.signal.image_statistics import COLOUR_BINS
from onnxplain.signal.results import Results
from onnxplain.signal.study import ORIGINALS, UNTUNED

_INK, _SOFT = "#1c1b1a", "#66635e"
_PALETTE = ("#b5361c", "#4a6fa5", "#d9a12b", "#4f8a5b", "#7d5a9e", "#3b8f99", "#a5647a")
_STYLE: Any = {"svg.hashsalt": "onnxplain", "font.size": 11, "axes.spines.top": False,
          "axes.spines.right": False, "text.color": _INK, "axes.labelcolor": _SOFT,
          "xtick.color": _SOFT, "ytick.color": _SOFT, "axes.edgecolor": "#c9c5be"}  # fmt: skip


def colours(results: Results) -> dict[str, str]:
    """Signal → the colour of its lines; the originals are black, the untuned signal is grey."""
    own = {n: _PALETTE[i % len(_PALETTE)] for i, n in enumerate(results.names)}
    return {ORIGINALS: _INK, UNTUNED: "#9a978f"} | own


def order_graph(results: Results) -> str:
    """Groups of classifiers, the widest signal on top; lines lead up to the groups that serve."""
    order = results.order
    levels = [0] * len(order.groups)
    for low, high in order.above:  # the groups are in rising order
        levels[high] = max(levels[high], levels[low] + 1)
    rows: dict[int, list[int]] = {}
    for group, level in enumerate(levels):
        rows.setdefault(level, []).append(group)
    place = {
        group: (k - (len(row) - 1) / 2, level)
        for level, row in rows.items()
        for k, group in enumerate(row)
    }
    with matplotlib.rc_context(_STYLE):
        width = 1.2 + 2.1 * max(map(len, rows.values()))
        figure, axes = pyplot.subplots(figsize=(width, 0.5 + 0.95 * len(rows)))
        for low, high in order.above:
            arrow = {"arrowstyle": "-|>", "color": _SOFT, "shrinkA": 19, "shrinkB": 19, "lw": 1.4}
            axes.annotate("", place[high], place[low], arrowprops=arrow)
        for group, (x, y) in place.items():
            text = " ≡ ".join(results.names[i] for i in order.groups[group])
            box = {"boxstyle": "round,pad=0.5", "facecolor": "#fbe3d8", "edgecolor": "#b5361c"}
            axes.text(x, y, text, ha="center", va="center", bbox=box)
        axes.set(xlim=(-width / 4.2, width / 4.2), ylim=(-0.5, len(rows) - 0.5))
        axes.axis("off")
        return _uri(figure)


def information(results: Results) -> str:
    """A box for each signal's normalised mutual information with the originals."""
    own = colours(results)
    stats = [
        {"label": name, "whislo": q[0], "q1": q[1], "med": q[2], "q3": q[3], "whishi": q[4]}
        for name, q in results.information.items()
    ]
    with matplotlib.rc_context(_STYLE):
        figure, axes = pyplot.subplots(figsize=(6.4, 0.9 + 0.5 * len(stats)), layout="constrained")
        drawn = axes.bxp(
            stats[::-1], orientation="horizontal", showfliers=False, patch_artist=True, widths=0.6
        )
        for box, line, entry in zip(drawn["boxes"], drawn["medians"], stats[::-1], strict=True):
            box.set(facecolor=own[str(entry["label"])], alpha=0.75, edgecolor=_INK)
            line.set(color=_INK, linewidth=2)
        axes.set_xlabel("normalised mutual information with the original")
        axes.grid(axis="x", alpha=0.25)
        return _uri(figure)


def colour_histograms(results: Results) -> str:
    """The distribution of each channel's values, a line for each signal."""
    own = colours(results)
    channels = len(results.colour_counts[ORIGINALS])
    names = ("red", "green", "blue") if channels == 3 else ("grey",)
    at = (np.arange(COLOUR_BINS) + 0.5) / COLOUR_BINS
    with matplotlib.rc_context(_STYLE):
        figure, grid = pyplot.subplots(
            1, channels, figsize=(6.4 if channels == 1 else 11, 3.1), squeeze=False,
            sharey=True, layout="constrained",
        )  # fmt: skip
        for channel, axes in enumerate(grid[0]):
            for name, counts in results.colour_counts.items():
                share = counts[channel] / counts[channel].sum()
                axes.plot(at, share, color=own[name], label=name, **_line(name))
            axes.set(xlabel=f"{names[channel]}, 0 … 1", yscale="log")
            axes.grid(alpha=0.25)
        grid[0][0].set_ylabel("share of the pixels")
        _legend(grid[0][-1])
        return _uri(figure)


def spectra(results: Results) -> str:
    """The power at each frequency, relative to the originals'."""
    own = colours(results)
    base = results.spectrum[ORIGINALS]
    side = 2 * (len(base) - 1)
    at = np.arange(1, len(base)) / side
    with matplotlib.rc_context(_STYLE):
        figure, axes = pyplot.subplots(figsize=(6.4, 3.1), layout="constrained")
        axes.axhline(0, color=own[ORIGINALS], linewidth=1.2, label=ORIGINALS)
        for name, power in results.spectrum.items():
            if name != ORIGINALS:
                decibels = 10 * np.log10(power[1:] / base[1:])
                axes.plot(at, decibels, color=own[name], label=name, **_line(name))
        axes.set(xlabel="spatial frequency in cycles per pixel", ylabel="power ÷ originals’, dB")
        axes.grid(alpha=0.25)
        _legend(axes)
        return _uri(figure)


def _line(name: str) -> dict[str, Any]:
    return {
        "linewidth": 1.8 if name != UNTUNED else 1.5,
        "linestyle": "--" if name == UNTUNED else "-",
    }


def _legend(axes: Axes) -> None:
    axes.legend(frameon=False, fontsize=9)


def _uri(figure: Any) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    pyplot.close(figure)
    return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode("ascii")
