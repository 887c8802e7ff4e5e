"""What `onnxplain.bench.trust` measured, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxplain.bench.markdown import markdown

_ARROWS = {"higher": "↑", "lower": "↓"}
_EXCITATION = "excitation, "


def trust_tables(measured: Mapping[str, Any]) -> str:
    """Of what has been measured: digits, photographs, or both."""
    show = {"digits": _of_digits, "photographs": _of_photographs}
    parts = [of(measured[name]) for name, of in show.items() if name in measured]
    return "\n\n".join(parts) or "**Pending**: nothing has been measured yet."


def _of_digits(data: Mapping[str, Any]) -> str:
    share = data["mask share"]
    return "\n\n".join(
        [
            "## Digits whose place is known",
            f"{_images(data, 'canvases')} of 48 × 48 pixels: a digit of scikit-learn's, at a "
            "random place and size, over noise and pieces of other digits. The network, four "
            f"convolutions, is trained here, and right on {data['accuracy']:.1%} of other such "
            "canvases. The class is the one that is there, and its strokes are the mask: "
            f"{share:.1%} of the pixels, which is what relevance mass is by chance.",
            _table(data),
            _beaten(data),
        ]
    )


def _of_photographs(data: Mapping[str, Any]) -> str:
    machine = data["machine"]
    return "\n\n".join(
        [
            "## Photographs",
            f"{_images(data, 'photographs and mirror images')} from Python packages, "
            f"{data['network']} with its ImageNet weights, the class that it predicts. The cost is "
            f"explain ÷ forward on {machine['cpu']}, {machine['cores']} cores.",
            _table(data),
            _beaten(data),
        ]
    )


def _images(data: Mapping[str, Any], what: str) -> str:
    count, of = data["images"], data["of"]
    return f"{count} {what}" if count == of else f"{count} of {of} {what}, so far,"


def _table(data: Mapping[str, Any]) -> str:
    """A row for each method: means; the best bold, and marked what the images do not tell from it.

    The last column counts these two.
    """
    metrics, cost = data["metrics"], data.get("cost")
    rows = []
    for graph in data["graphs"]:
        verdicts = [_verdict(metric, graph) for metric in metrics.values()]
        good = sum(verdict != "" for verdict in verdicts)
        cells = [
            _cell(metric, graph, verdict)
            for metric, verdict in zip(metrics.values(), verdicts, strict=True)
        ]
        first = [] if cost is None else [f"{cost[graph]:.1f}"]
        rows.append([graph, *first, *cells, f"{good} of {len(metrics)}"])
    named = [f"{name.replace('-', ' ')} {_ARROWS[m['better']]}" for name, m in metrics.items()]
    header = ["", *([] if cost is None else ["cost"]), *named, "bold or ≈"]
    return markdown(header, rows)


def _cell(metric: Mapping[str, Any], graph: str, verdict: str) -> str:
    """A mean; and of how many images, where the graphs' differ in that."""
    found = {name: one for name, one in metric["means"].items() if one["mean"] is not None}
    if graph not in found:
        return ""
    mean = f"{found[graph]['mean']:.3g}"
    shown = f"**{mean}**" if verdict == _BEST else f"{mean} {verdict}".strip()
    uneven = len({one["images"] for one in found.values()}) > 1
    return f"{shown} (n = {found[graph]['images']})" if uneven else shown


_BEST, _TIED = "best", "≈"


def _verdict(metric: Mapping[str, Any], graph: str) -> str:
    """Whether a graph is the best by a metric, or the images do not tell it from that one."""
    means = metric["means"]
    if means[graph]["mean"] is None:
        return ""
    if graph == metric["best"]:
        return _BEST
    low, high = means[graph]["behind the best"]
    return _TIED if low is not None and low <= 0 <= high else ""


def _beaten(data: Mapping[str, Any]) -> str:
    """By what, and in what, excitation is beaten at either temperature."""
    graphs = [graph for graph in data["graphs"] if graph.startswith(_EXCITATION)]
    losses = [
        f"{name.replace('-', ' ')} (best: {best})"
        for name, metric in data["metrics"].items()
        if (best := metric["best"]) and not any(_verdict(metric, graph) for graph in graphs)
    ]
    count = len(data["metrics"])
    if not losses:
        return f"Excitation is among the best in all {count} columns, at one temperature at least."
    return (
        f"Excitation is beaten at both temperatures in {len(losses)} of {count} columns: "
        f"{', '.join(losses)}."
    )
