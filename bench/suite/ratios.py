"""What the benchmark claims: ratios of times of one interleaved run, and whether they got worse."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from onnxplain.bench.suite.record import EAGER, KERNELS, Key, Record, seconds, timed, where
from onnxplain.errors import InputError

WORSE = 1.15
"""Times its baseline that a ratio may have: what two runs of the same code differ by."""

FARTHER, ROUNDING = 2.0, 1e-5
"""Times its baseline, and what more, that a pullback's 1 − cosine may be."""


def ratios(results: Mapping[str, Any]) -> dict[str, float]:
    """The ratios of a result, by what they are; the lower, the better.

    Of each network and batch, and each engine of the explain graphs: the explanation ÷ the forward
    pass on the same engine, ÷ PyTorch's eager explanation, and K explanations ÷ one.
    """
    return {name: value for record in results["records"] for name, value in _of(record)}


def _of(record: Record) -> Iterator[tuple[str, float]]:
    medians = seconds(record)
    eager = medians.get(EAGER)
    for row in timed(record):
        if row["by"] != "onnxplain":
            continue
        kind, name = row["kind"], row["name"]
        forward = medians.get(("forward", name.removesuffix(KERNELS)))
        explain = medians.get(("explain", name))
        if kind == "explain" and forward:
            yield f"{where(record)}, {name}: explain ÷ forward", row["median"] / forward
        if kind == "explain" and eager:
            yield f"{where(record)}, {name}: explain ÷ PyTorch eager's", row["median"] / eager
        if kind.startswith("explain K") and explain:
            yield f"{where(record)}, {name}: {kind} ÷ explain", row["median"] / explain


def worse(results: Mapping[str, Any], baseline: Mapping[str, Any]) -> list[str]:
    """A sentence for each ratio that got worse than noise explains, each pullback that got farther
    from the reference's, and each explain graph that fails and did not.

    Raises:
        InputError: the two have no network and batch in common.
    """
    earlier = {where(record): record for record in baseline["records"]}
    pairs = [(r, earlier[where(r)]) for r in results["records"] if where(r) in earlier]
    if not pairs:
        raise InputError("the earlier results have none of these networks and batches")
    return [sentence for now, before in pairs for sentence in _worse(now, before)]


def _worse(now: Record, before: Record) -> Iterator[str]:
    found = dict(_of(now))
    for name, was in _of(before):
        if (ratio := found.get(name, 0.0)) > WORSE * was:
            yield f"{name} is {ratio:.2f}, and was {was:.2f}"
    earlier = _rows(before)
    for key, row in _rows(now).items():
        name, old = f"{where(now)}, {row['name']}, {row['kind']}", earlier.get(key, {})
        if row["by"] != "onnxplain":
            continue
        if "problem" in row and "median" in old:
            yield f"{name} fails: {row['problem']}"
        if "cosine" in row and "cosine" in old:
            bound = FARTHER * (1 - old["cosine"]) + ROUNDING
            if not 1 - row["cosine"] <= bound:  # of a NaN too
                yield f"{name} has a cosine of {row['cosine']:.6f}, and had {old['cosine']:.6f}"


def _rows(record: Record) -> dict[Key, Record]:
    return {(row["kind"], row["name"]): row for row in record["rows"]}
