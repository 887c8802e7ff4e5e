"""Judge the node tests of the installed onnx, and write docs/gradients.md."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import onnx
from rich.progress import track

from onnxplain.bench.markdown import markdown
from onnxplain.bench.node_tests.cases import node_tests
from onnxplain.bench.node_tests.judge import (
    CONSTANT,
    CRASH,
    REFUSED,
    RIGHT,
    UNDECIDED,
    WRONG,
    Verdict,
    judge,
)
from onnxplain.bench.node_tests.reasons import NO_DERIVATIVE, NO_NETWORK, UNDECIDABLE
from onnxplain.machine import machine

_HERE = Path(__file__).resolve().parents[2]
RESULTS, DOCUMENT = _HERE / "bench/results/node_tests.json", _HERE / "docs/gradients.md"
VERDICTS = (RIGHT, WRONG, CRASH, REFUSED, UNDECIDED, CONSTANT)

PAGE = """# Every gradient, beside differences

ONNX tests each of its operators, in each of its forms. We take each of these node tests for one of
a vector–Jacobian product: what `onnxplain.differentiate` makes of it, in float64, beside central
differences of the test itself, for every input of floats, of float16 and bfloat16 too. What
evaluates the test is ONNX Runtime, else ONNX's reference evaluator, else our own
(`onnxplain.reference`), each only where it gives the outputs that the test comes with; what draws
numbers draws the same each time. Of onnx {version}, {total} tests take and give floats:

{totals}

- **wrong**: another gradient, or another forward pass. **crash**: an error that is no sentence.
- **refused**: `differentiate` says that it has no rule, and how to give it one.
- **undecided**: differences do not agree with each other there, or nothing evaluates the test.
- **no derivative**: nothing flows, and the differences are 0.

By operator; `_expanded` tests, of an operator spelled out, count as the operator's own.

{table}

## What is refused, and why

The {refused} refused are of training, and part of no network as it answers:

{no_network}

No derivative:

{no_derivative}

Undecided:

{undecidable}

Made by `python -m onnxplain.bench.node_tests`. `python -m onnxplain.bench.random_graphs` puts
operators together at random, at opsets 13 to the newest, and judges them likewise, and some of them
as `onnxplain.export` writes them: how many so far, and how, stands in
[`bench/results/random_graphs.json`](../bench/results/random_graphs.json).
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="onnxplain.bench.node_tests", description=__doc__)
    parser.add_argument("operators", nargs="*", help="Judge these again; else all. Five minutes.")
    operators = parser.parse_args().operators
    version, table = read() if operators else (onnx.__version__, [])
    if version != onnx.__version__:
        parser.error(f"the table is of onnx {version}: judge all of {onnx.__version__}")
    kept = {row.test: row for row in table if row.operator not in operators}
    verdicts = [
        kept.get(test.name) or judge(test)
        for test in track(list(node_tests()), "Judging", transient=True)
    ]
    write(verdicts, RESULTS)
    DOCUMENT.write_text(page(onnx.__version__, verdicts))


def write(verdicts: Iterable[Verdict], path: Path) -> None:
    rows = ",\n".join(json.dumps(dataclasses.asdict(verdict)) for verdict in verdicts)
    head = json.dumps({"machine": machine(), "onnx": onnx.__version__})
    path.write_text(f'{head[:-1]}, "verdicts": [\n{rows}\n]}}\n')


def read(path: Path = RESULTS) -> tuple[str, list[Verdict]]:
    """The version of onnx, and the verdicts."""
    found = json.loads(path.read_text())
    return found["onnx"], [Verdict(**row) for row in found["verdicts"]]


def page(version: str, verdicts: list[Verdict]) -> str:
    by_operator: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        by_operator[verdict.operator].append(verdict)
    rows = [
        [f"`{operator}`", *_counts(found), "; ".join(_reasons(found))]
        for operator, found in sorted(by_operator.items())
    ]
    table = markdown(["operator", *VERDICTS, "why"], rows)
    totals = markdown(VERDICTS, [[count or "0" for count in _counts(verdicts)]])
    refused = Counter(v.operator for v in verdicts if v.verdict == REFUSED)
    constant = Counter(v.operator for v in verdicts if v.verdict == CONSTANT)
    undecided = Counter(v.operator for v in verdicts if v.verdict == UNDECIDED)
    return PAGE.format(
        version=version,
        total=len(verdicts),
        totals=totals,
        table=table,
        refused=refused.total(),
        no_network=_explained(NO_NETWORK, refused),
        no_derivative=_explained(NO_DERIVATIVE, constant),
        undecidable=_explained(UNDECIDABLE, undecided),
    )


def _explained(reasons: Mapping[str, str], counts: Mapping[str, int]) -> str:
    return "\n".join(f"- `{name}` ({counts[name]}): {why}." for name, why in reasons.items())


def _counts(verdicts: list[Verdict]) -> list[str]:
    counts = [sum(v.verdict == kind for v in verdicts) for kind in VERDICTS]
    return [str(count) if count else "" for count in counts]


def _reasons(verdicts: list[Verdict]) -> list[str]:
    """Without what names a node, and without the remedy."""
    return sorted(
        {v.reason.partition(", at node")[0].partition(" (node")[0] for v in verdicts if v.reason}
    )


if __name__ == "__main__":
    main()
