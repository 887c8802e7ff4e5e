"""The measured rows as Markdown tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxplain.bench.estimators.networks import NETWORKS
from onnxplain.bench.estimators.parity import BOUND
from onnxplain.bench.estimators.rows import ROWS
from onnxplain.bench.markdown import markdown


def parity_table(measured: Mapping[str, Any]) -> str:
    """Relative L2 by row and network; bold above the bound, empty where the package has none."""
    found = {(r["network"], r["row"], r["package"]): r for r in measured["parity"]}
    names = [n for n in NETWORKS if any(n == network for network, *_ in found)]
    rows = [
        [f"`{row.name}`", row.package, *(_cell(found.get((n, *row.key))) for n in names)]
        for row in ROWS
    ]
    headers = ["", "beside", *(f"{n}{', trained' if _trained(measured, n) else ''}" for n in names)]
    versions = measured["machine"]["versions"]
    packages = ", ".join(
        f"{name} {versions[name]}" for name in ("captum", "grad-cam", "zennit", "lxt", "torch")
    )
    return f"{markdown(headers, rows)}\n\n{packages}."


def _cell(record: Mapping[str, Any] | None) -> str:
    if record is None:
        return ""
    if record["reason"]:
        return "refused"
    error = f"{record['relative L2']:.0e}"
    return error if record["relative L2"] <= BOUND else f"**{error}**"


def _trained(measured: Mapping[str, Any], name: str) -> bool:
    return any(r["trained"] for r in measured["parity"] if r["network"] == name)


def costs_table(measured: Mapping[str, Any]) -> str:
    """Seconds of each contender in one interleaved run, and what else was measured."""
    best = min(t for name, t in measured["seconds"].items() if name.startswith("Captum"))
    rows = [[n, f"{t:.2f} s", f"{best / t:.2f}"] for n, t in measured["seconds"].items()]
    size, peak = measured["bytes"], list(measured["peak bytes"].values())
    gain = measured["logit difference"]
    return "\n\n".join(
        [
            markdown(["", "median", "Captum's best ÷ this"], rows),
            f"{measured['network']}, {measured['steps']} steps, {measured['threads']} threads. "
            f"Convergence delta {measured['convergence delta']:.3g}, Captum's "
            f"{measured['of Captum']:.3g}, of a logit difference of "
            f"{gain:.3g}. The file is {size['chunk 1'] / size['one explanation']:.3f} × that of "
            f"one explanation; peak memory {peak[0] / peak[1]:.2f} × that of one batch as large "
            f"as the chunk. TensorRT-RTX: {measured['TensorRT-RTX']}.",
        ]
    )


def estimators_table(measured: Mapping[str, Any]) -> str:
    """All that there is."""
    parts = [parity_table(measured)]
    if measured["costs"]:
        parts += ["## What integrated gradients cost", costs_table(measured["costs"])]
    return "\n\n".join(parts)
