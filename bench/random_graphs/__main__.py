"""Judge random graphs, and write what was found to bench/results/random_graphs.json.

Graph n is that of seed n, as long as graphs are drawn as they were: the first 10,000 were drawn
without an open batch of one, an ε below 0.05 and `onnxplain.export`. What is interrupted goes on
where it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from onnxplain.bench.node_tests.judge import CRASH, KINK, RIGHT, UNDECIDED
from onnxplain.bench.random_graphs.plans import draw, judged
from onnxplain.files import replacing
from onnxplain.machine import machine

RESULTS = Path(__file__).resolve().parents[1] / "results/random_graphs.json"
KINKED = "kink"
_EVERY = 50  # draws between two writings


@dataclass
class Log:
    """How many graphs were judged how, at which opsets, of which steps, of how many images and by
    which way; those not right by seed. `changed` are the graphs from which on they were drawn
    otherwise: the seeds of those before give other graphs now.

    A graph is a `kink` where differences do not agree with each other, at inputs near by too.
    """

    graphs: int = 0
    changed: list[int] = field(default_factory=list)
    verdicts: dict[str, int] = field(default_factory=dict)
    opsets: dict[str, int] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    images: dict[str, int] = field(default_factory=dict)
    ways: dict[str, int] = field(default_factory=dict)
    others: list[dict[str, str | int]] = field(default_factory=list)

    def judge_next(self) -> None:
        seed = self.graphs
        plan, opset = draw(np.random.default_rng(seed))
        try:
            verdict, at = judged(plan, opset)
            kind, reason = verdict.verdict, verdict.reason
        except Exception as error:  # of any kind: a step that makes no graph is one, too
            kind, reason, at = CRASH, f"{type(error).__name__}: {error}", opset
        kind = KINKED if kind == UNDECIDED and reason.endswith(KINK) else kind
        self.graphs += 1
        for counts, what in (
            (self.verdicts, [kind]),
            (self.opsets, [str(at)]),
            (self.steps, [step.__name__ for step, *_ in plan.steps]),
            (self.images, [str(len(plan.arrays()[0]))]),
            (self.ways, ["export" if plan.exported else "differentiate"]),
        ):
            counts.update(Counter(counts) + Counter(what))
        if kind not in (RIGHT, KINKED):
            row: dict[str, str | int] = {"seed": seed, "opset": at, "plan": str(plan)}
            self.others.append({**row, "verdict": kind, "reason": reason})


def read(path: Path = RESULTS) -> Log:
    """What was found so far."""
    if not path.is_file():
        return Log()
    found = json.loads(path.read_text())
    return Log(**{each.name: found[each.name] for each in dataclasses.fields(Log)})


def write(log: Log, path: Path = RESULTS) -> None:
    versions = {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}
    for counts in (log.verdicts, log.opsets, log.steps, log.images, log.ways):
        ordered = sorted(counts.items())
        counts.clear()
        counts.update(ordered)
    found = {"machine": machine(), **versions, **dataclasses.asdict(log)}
    with replacing(path) as beside:
        beside.write_text(json.dumps(found, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="onnxplain.bench.random_graphs", description=__doc__)
    parser.add_argument("--graphs", type=int, default=10_000, help="Up to so many in all.")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="At the longest.")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    log, end = read(given.out), time.monotonic() + given.seconds
    while log.graphs < given.graphs and time.monotonic() < end:
        log.judge_next()
        if log.graphs % _EVERY == 0:
            write(log, given.out)
            print(log.graphs, log.verdicts, flush=True)
    write(log, given.out)


if __name__ == "__main__":
    main()
