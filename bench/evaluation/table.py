"""What `onnxplain.bench.evaluation` measured, as Markdown: how alike the scores are, and how fast
they come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxplain.bench.markdown import markdown

AGREES = 1e-3
"""Up to which two scores are the same."""


def agreement_table(measured: Mapping[str, Any]) -> str:
    """By metric: the largest difference of a score, and what it is of one and the same pullback."""
    rows = [
        [
            name.replace("-", " "),
            f"{one['largest_difference']:.1e}",
            f"{one['differ']} of {one['scores']}",
            f"{one['largest_difference_of_the_graphs_pullback']:.1e}",
        ]
        for name, one in measured["metrics"].items()
    ]
    header = ["", "largest difference", f"above {AGREES:g}", "of the graph's own pullback"]
    return f"{markdown(header, rows)}\n\n{_agreement(measured)}"


def time_table(measured: Mapping[str, Any]) -> str:
    """By metric: seconds a score takes, by explain graphs and by Quantus over PyTorch."""
    rows = [
        [name.replace("-", " "), *_times(one, one["scores"])]
        for name, one in measured["metrics"].items()
    ]
    every = f"**an image, all {len(measured['methods'])} methods**"
    rows.append([every, *_times(measured, measured["images"])])
    machine, versions = measured["machine"], measured["machine"]["versions"]
    threads = measured["threads"] or "as many threads as each takes by itself"
    return "\n\n".join(
        [
            markdown(["seconds", "explain graphs", "Quantus over PyTorch", "÷"], rows),
            f"{_of(measured)}, each score by one and then by the other, on {machine['cpu']}, "
            f"{machine['cores']} cores, {threads}, PyTorch {versions['torch']}, Captum "
            f"{versions['captum']}.",
        ]
    )


def _times(one: Mapping[str, Any], count: int) -> list[str]:
    seconds = (f"{one[f'{who}_seconds'] / count:.2f}" for who in ("graph", "pytorch"))
    return [*seconds, f"{one['ratio']:.1f} ×"]


def _of(measured: Mapping[str, Any]) -> str:
    methods, metrics = (len(measured[part]) for part in ("methods", "metrics"))
    return f"EfficientNet-Lite0, {methods} methods × {metrics} metrics × {measured['images']} crops"


def _agreement(measured: Mapping[str, Any]) -> str:
    """How many scores differ, and what is left of that where both have the same pullback."""
    count, differ = measured["scores"], measured["differ"]
    methods = ", ".join(measured["methods"])
    same = measured["largest_difference_of_the_graphs_pullback"]
    return (
        f"Of {count} scores ({methods}), more than {AGREES:g} apart: {differ}, by at most "
        f"{measured['largest_difference']:.1e}. With the graph's own pullback given to PyTorch's "
        f"network for these, the largest difference of all: {same:.1e}. PyTorch itself, with its "
        f"convolutions for the pullback by other kernels (without oneDNN), differs from PyTorch in "
        f"{measured['differ_by_pytorchs_kernels']} of these, by at most "
        f"{measured['largest_difference_of_pytorchs_kernels']:.1e}."
    )
