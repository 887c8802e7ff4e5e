"""The process whose memory is measured: it explains one job one way, and prints its peak."""

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
        from onnxplain.bench.suite.theirs import theirs

        ways = theirs(job.device, compiled=False)
    else:
        from onnxplain.bench.suite.ours import ours

        ways = ours(job.device, (1,), maps=False)
    way = next(way for way in ways if (way.name, way.kind) == (name, "explain"))
    run = way.build(job)
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
