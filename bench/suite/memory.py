"""The process whose memory is measured: it explains one job one way, and prints its peak."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

from onnxplain.bench.suite.job import Job

_RUNS = 5


def peak(name: str, job: Job) -> int:
    """Bytes that this process has held at most, after a few explanations."""
    if name.startswith("PyTorch"):
        from onnxplain.bench.suite.theirs import theirs

        ways = theirs(job.device, compiled=False)
    else:
        from onnxplain.bench.suite.ours import ours

        ways = ours(job.device, (1,), maps=False)
    way = next(way for way in ways if (way.name, way.kind) == (name, "explain"))
    run = way.build(job)
    for _ in range(_RUNS):
        run()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main(fields: str) -> None:
    given: dict[str, Any] = json.loads(fields)
    name = given.pop("name")
    print(peak(name, Job(**given | {"folder": Path(given["folder"])})))


if __name__ == "__main__":
    main(*sys.argv[1:])
