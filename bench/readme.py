"""Put measured figures into the README: `python -m onnxplain.bench.readme RESULT.json README.md`.

A table stands between `<!-- NAME -->` and `<!-- /NAME -->`, NAME being the JSON file's stem, so
no figure is typed in by hand.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def demo_table(measured: Mapping[str, Any]) -> str:
    """What `onnxplain demo` measured, as Markdown."""
    seconds = measured["seconds, batch 1"]
    ours = seconds["explain, ONNX Runtime"]["median"]
    rows = [
        [
            name,
            f"{t['median'] * 1e3:.1f} ms",
            f"{t['p95'] * 1e3:.1f} ms",
            f"{t['median'] / ours:.2f}",
        ]
        for name, t in seconds.items()
    ]
    parity = [
        [name, f"{p['max_abs']:.1e}", f"{p['relative_l2']:.1e}", f"{p['cosine']:.9f}"]
        for name, p in measured["parity"].items()
    ]
    machine = measured["machine"]
    rounds = seconds["explain, ONNX Runtime"]["repeats"]
    return "\n\n".join(
        [
            markdown(["batch 1", "median", "p95", "÷ our explain"], rows),
            markdown(
                ["against PyTorch, float64", "max difference", "relative L2", "cosine"], parity
            ),
            f"{measured['network']}, excitation, {rounds} interleaved rounds on "
            f"{machine['cpu']}, {machine['cores']} cores.",
        ]
    )


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def precision_table(measured: Mapping[str, Any]) -> str:
    """What `onnxplain.bench.precision` measured: the pullback's cosine per provider."""
    records = measured["records"]
    columns = list(dict.fromkeys((r["provider"], r["precision"]) for r in records))
    found = {(r["network"], r["provider"], r["precision"]): r for r in records}
    rows = []
    for network in dict.fromkeys(r["network"] for r in records):
        here = [found.get((network, *column)) for column in columns]
        one = next(r for r in here if r)
        trained = ", trained" if one["trained"] else ""
        cosines = [f"{r['pullback cosine']:.7f}" if r else "" for r in here]
        rows.append([f"{network}{trained}", one["method"], *cosines])
    header = ["network", "method", *(" ".join(column) for column in columns)]
    return (
        f"{markdown(header, rows)}\n\nUntrained networks have random weights, which halves "
        "suit less."
    )


def runtimes_table(measured: Mapping[str, Any]) -> str:
    """What `onnxplain.bench.runtimes` measured: every way to explain, the fastest first."""
    rows = []
    for record in measured["records"]:
        timed = sorted(record["rows"], key=lambda row: row["median"])
        eager = next(r for r in timed if r["name"] == "explain, PyTorch eager")["median"]
        for row in timed:
            rows.append(
                [
                    f"{record['network']}, batch {record['batch']}",
                    row["name"],
                    f"{row['median'] * 1e3:.1f} ms",
                    f"{row['p95'] * 1e3:.1f} ms",
                    f"{eager / row['median']:.2f}",
                    "" if row["cosine"] is None else f"{row['cosine']:.6f}",
                ]
            )
    machine = measured["machine"]
    header = ["network", "", "median", "p95", "PyTorch eager's explain ÷ this", "cosine"]
    rounds = measured["records"][0]["rows"][0]["repeats"]
    return (
        f"{markdown(header, rows)}\n\nExcitation, random weights, {rounds} interleaved rounds on "
        f"{machine.get('gpu', machine['cpu'])}, {machine['cores']} cores."
    )


TABLES = {"demo": demo_table, "precision": precision_table, "runtimes": runtimes_table}


def main(result: str, readme: str) -> None:
    name = Path(result).stem
    table = TABLES[name](json.loads(Path(result).read_text()))
    text = Path(readme).read_text()
    between = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if not between.search(text):
        sys.exit(f"{readme} has no <!-- {name} --> … <!-- /{name} -->")
    Path(readme).write_text(between.sub(lambda m: f"{m[1]}{table}\n{m[2]}", text))


if __name__ == "__main__":
    main(*sys.argv[1:])
