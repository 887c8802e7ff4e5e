"""The measured rows as Markdown tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxplain.bench.estimators.costs import CAPTUM, ONE, SINGLE
from onnxplain.bench.estimators.networks import NETWORKS
from onnxplain.bench.estimators.parity import BOUND
from onnxplain.bench.estimators.rows import ROWS
from onnxplain.bench.markdown import markdown


def parity_table(measured: Mapping[str, Any]) -> str:
    """Relative L2 by row and network; bold above the bound, empty where the package has none."""
    found = {(r["network"], r["row"], r["package"]): r for r in measured.get("parity", [])}
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
    return any(r["trained"] for r in measured.get("parity", []) if r["network"] == name)


def costs_table(measured: Mapping[str, Any]) -> str:
    """Seconds of each contender in one interleaved run, and what else was measured."""
    seconds, distance = measured["seconds"], measured["relative L2 to Captum"]
    best = min(t for name, t in seconds.items() if name.startswith(CAPTUM))
    rows = [
        [name, f"{t:.2f} s", f"{best / t:.2f}", f"{distance[name]:.0e}" if name in distance else ""]
        for name, t in seconds.items()
        if ONE not in name
    ]
    singles = ", ".join(
        f"{name.removesuffix(f', {ONE}')} {t * 1000:.0f} ms"
        for name, t in seconds.items()
        if ONE in name
    )
    size, peak = measured["bytes"], list(measured["peak bytes"].values())
    complete = [
        [
            f"{one['photograph']}, {one['steps']} steps",
            f"{one['logit difference']:.2f}",
            *(f"{one[who]:.4f}" for who in ("convergence delta", "of Captum")),
            f"{abs(one['convergence delta'] / one['logit difference']):.2%}",
        ]
        for one in measured["completeness"]
    ]
    parts = [
        markdown(["", "median", "Captum's best ÷ this", "relative L2 to Captum"], rows),
        f"{measured['network']}, random weights, {measured['steps']} steps, "
        f"{measured['threads']} threads. One explanation: {singles}. The file is "
        f"{size[SINGLE] / size[ONE]:.3f} × that of one explanation; peak memory "
        f"{peak[0] / peak[1]:.2f} × that of one batch as large as the chunk. TensorRT-RTX: "
        f"{measured['TensorRT-RTX']}. Of random weights the gradient changes from step to step "
        "nearly at random: float32 itself moves the sum by as much as shown (in float64 it is "
        "Captum's, above), and bfloat16 gives another.",
    ]
    if complete:
        headers = ["", "logit difference", "convergence delta", "Captum's", "of the difference"]
        parts += [
            "Completeness, with the trained weights of "
            f"{measured['completeness'][0]['network']}: by how much the attributions' sum misses "
            "the difference of the target's logit between photograph and baseline. What it misses "
            "is the quadrature's error, which Captum has too: a network of rectifiers has kinks "
            "along the way, and its trapezoids or Gaussian nodes converge slowly.",
            markdown(headers, complete),
        ]
    return "\n\n".join(parts)


def estimators_table(measured: Mapping[str, Any]) -> str:
    """All that there is."""
    parts = [parity_table(measured)]
    if measured.get("costs"):
        parts += ["## What integrated gradients cost", costs_table(measured["costs"])]
    return "\n\n".join(parts)
