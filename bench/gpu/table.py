"""What a GPU's figures say, as Markdown: python -m onnxplain.bench.gpu.table RESULT.json."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from onnxplain.bench.markdown import markdown
from onnxplain.bench.suite.record import timed


def gpu_table(measured: Mapping[str, Any]) -> str:
    """Times beside launches, parity, and the fused operations."""
    tables = [
        markdown(
            ["network", "", "batch", "forward", "explain", "cosine", "nodes, forward : explain"],
            _times(measured),
        ),
        markdown(
            [
                "fused operation",
                "batch",
                "body",
                "kernel",
                "body ÷ kernel",
                "GB/s of a call",
                "difference",
            ],
            _kernels(measured),
        ),
        markdown(["provider", "precision", "network", "pullback's cosine"], _parity(measured)),
    ]
    machine = measured.get("times", {}).get("machine", {})
    where = machine.get("gpu", machine.get("cpu", "an unknown machine"))
    problems = [f"{name}: {problem}" for name, problem in measured["problems"].items()]
    took = sum(measured["seconds"].values())
    last = f"Medians on {where}; all of it took {took / 60:.1f} minutes."
    return "\n\n".join([*tables, *problems, last])


def _times(measured: Mapping[str, Any]) -> Iterator[list[str]]:
    counted = {
        (one["network"], f"{one['provider']} float32"): one["nodes"]
        for one in measured.get("launches", [])
    }
    for record in measured.get("times", {}).get("records", []):
        rows = {(row["kind"], row["name"]): row for row in timed(record)}
        for name in dict.fromkeys(name for _, name in rows):
            pair = [rows.get((kind, name)) for kind in ("forward", "explain")]
            nodes = counted.get((record["network"], name), {})
            yield [
                *(record["network"], name, str(record["batch"])),
                *(f"{row['median'] * 1e3:.2f} ms" if row else "" for row in pair),
                f"{pair[1]['cosine']:.6f}" if pair[1] else "",
                " : ".join(str(sum(side.values())) for side in nodes.values()),
            ]


def _kernels(measured: Mapping[str, Any]) -> Iterator[list[str]]:
    for one in measured.get("kernels", []):
        name = f"{one.get('operation', '')}, {one.get('dtype', '')}"
        if "problem" in one:
            yield [name, str(one.get("batch", "")), one["problem"], "", "", "", ""]
            continue
        body, kernel = one["body"], one["kernel"]
        yield [
            *(name, str(one["batch"]), f"{body * 1e3:.3f} ms", f"{kernel * 1e3:.3f} ms"),
            *(f"{body / kernel:.2f}", f"{one['GB/s']:.0f}", f"{one['error']:.0e}"),
        ]


def _parity(measured: Mapping[str, Any]) -> Iterator[list[str]]:
    for one in measured.get("parity", []):
        cosine = f"{one['pullback cosine']:.7f}"
        yield [one["provider"], one["precision"], one["network"], cosine]


if __name__ == "__main__":
    print(gpu_table(json.loads(Path(sys.argv[1]).read_text())))
