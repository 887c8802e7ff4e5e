"""The process whose memory is measured: it explains with one candidate, and prints its peak."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from onnxplain.bench.suite.job import Job
from onnxplain.errors import BackendError

_RUNS = 5


def peak(name: str, job: Job) -> int:
    """Bytes that this process has held at most, after a few explanations; Linux tells.

    (`ru_maxrss` does not: it begins with what the parent held.)
    """
    if name.startswith("PyTorch"):
        from onnxplain.bench.suite.pytorch import pytorch_candidates

        candidates = pytorch_candidates(job.device, compiled=False)
    else:
        from onnxplain.bench.suite.graphs import graph_candidates

        candidates = graph_candidates(job.device, (1,), maps=False)
    explains = (c for c in candidates if (c.name, c.kind) == (name, "explain"))
    run = next(explains).build(job)
    for _ in range(_RUNS):
        run()
    return high_water()


def high_water() -> int:
    """Bytes that this process has held at most."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise BackendError("this system does not tell how much memory a process has held")


def main(fields: str) -> None:
    given: dict[str, Any] = json.loads(fields)
    name = given.pop("name")
    print(peak(name, Job(**given | {"folder": Path(given["folder"])})))


if __name__ == "__main__":
    main(*sys.argv[1:])
