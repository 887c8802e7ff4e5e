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


TABLES = {"demo": demo_table}


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
