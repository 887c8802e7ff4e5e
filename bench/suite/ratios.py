"""What the benchmark claims: ratios of times of one interleaved run, and whether they got worse."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

WORSE = 1.15
"""Times its baseline that a ratio may have: what two runs of the same code differ by."""


def ratios(results: Mapping[str, Any]) -> dict[str, float]:
    """The ratios of a result, by what they are; the lower, the better we are.

    Of each network and batch, and each of our engines: the explanation ÷ the forward pass on the
    same engine, ÷ PyTorch's eager explanation, and K explanations ÷ one.
    """
    return {name: value for record in results["records"] for name, value in _of(record)}


def _of(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    seconds = {(r["kind"], r["name"]): r["median"] for r in record["rows"] if "median" in r}
    eager = seconds.get(("explain", "PyTorch eager"))
    where = f"{record['network']}, batch {record['batch']}"
    for row in record["rows"]:
        if row["by"] != "onnxplain" or "median" not in row:
            continue
        kind, name = row["kind"], row["name"]
        forward, explain = seconds.get(("forward", name)), seconds.get(("explain", name))
        if kind == "explain" and forward:
            yield f"{where}, {name}: explain ÷ forward", row["median"] / forward
        if kind == "explain" and eager:
            yield f"{where}, {name}: explain ÷ PyTorch eager's", row["median"] / eager
        if kind.startswith("explain K") and explain:
            yield f"{where}, {name}: {kind} ÷ explain", row["median"] / explain


def worse(results: Mapping[str, Any], baseline: Mapping[str, Any]) -> list[str]:
    """A sentence for each ratio that both have and that got worse than noise explains."""
    before = ratios(baseline)
    return [
        f"{name} is {value:.2f}, and was {before[name]:.2f}"
        for name, value in ratios(results).items()
        if name in before and value > WORSE * before[name]
    ]
