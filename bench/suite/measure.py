"""Timing a job's candidates against each other, with parity and the memory that each takes."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from onnxplain.bench.networks import TRAINED
from onnxplain.bench.suite.candidate import Candidate, Run
from onnxplain.bench.suite.graphs import graph_candidates
from onnxplain.bench.suite.job import LAYERS, Job
from onnxplain.bench.suite.peers import peer_candidates
from onnxplain.bench.suite.pytorch import pytorch_candidates
from onnxplain.files import scratch
from onnxplain.reference.parity import Parity
from onnxplain.timing import interleaved

WARMUP = 3
MEMORY = (("cpu float32", "explain"), ("openvino float32", "explain"), ("PyTorch eager", "explain"))
"""(name, kind) of the candidates whose memory is measured."""


@dataclasses.dataclass(frozen=True)
class Scope:
    """What is measured of a job: targets per image, and whether PyTorch's compiled and other
    packages' candidates are."""

    targets: Sequence[int] = (1,)
    compiled: bool = True
    peers: bool = True

    def candidates(self, job: Job) -> Iterator[Candidate]:
        maps = self.peers and job.network in LAYERS
        yield from graph_candidates(job.device, self.targets, maps)
        yield from pytorch_candidates(job.device, self.compiled)
        if self.peers and job.device == "cpu":
            yield from peer_candidates(maps)


def measure(
    job: Job,
    scope: Scope,
    rounds: int,
    memory: bool,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """A record of one job, ready for JSON.

    Args:
        rounds: interleaved ones that count.
        memory: whether to measure memory too, in processes of their own.
        progress: told what is being done.

    Returns:
        "network", "trained", "batch", "rounds", and "rows": of each candidate its "name", "kind",
        "by" and either "problem" or its `Timing`; of an "explain" the "cosine" of the pullback to
        the float64 reference's, the lowest of the images'; "memory_bytes" where it was measured.
    """
    rows, runs = [], {}
    for candidate in scope.candidates(job):
        progress(f"{candidate.kind}, {candidate.name}: first run")
        row: dict[str, Any] = {"name": candidate.name, "kind": candidate.kind, "by": candidate.by}
        try:
            run = candidate.build(job)
            result = run()
        except Exception as error:  # a peer may not take every network, and raises what it likes
            row["problem"] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        else:
            runs[candidate.name, candidate.kind] = run
            if candidate.kind == "explain":
                row["cosine"] = _cosine(result, job.expected)
        rows.append(row)
    progress("timing")
    timings = interleaved(_named(runs), rounds, WARMUP)
    for row in rows:
        key = f"{row['kind']}, {row['name']}"
        if key in timings:
            row |= dataclasses.asdict(timings[key])
        if memory and key in timings and (row["name"], row["kind"]) in MEMORY:
            progress(f"{key}: memory")
            if (held := _memory(job, row["name"])) is not None:
                row["memory_bytes"] = held
    return {
        "network": job.network,
        "trained": job.network in TRAINED,
        "batch": job.batch,
        "rounds": rounds,
        "rows": rows,
    }


def _named(runs: Mapping[tuple[str, str], Run]) -> dict[str, Run]:
    return {f"{kind}, {name}": run for (name, kind), run in runs.items()}


def _cosine(pullback: Any, expected: Any) -> float:
    found = pullback.float().cpu().numpy() if hasattr(pullback, "cpu") else np.asarray(pullback)
    return min(Parity.of(a, b).cosine for a, b in zip(found, expected, strict=False))


def _memory(job: Job, name: str) -> int | None:
    """Of a process that explains the job's images a few times, the most that it held, in bytes.

    It begins with no cache, and so compiles as a first run does. None where it fails.
    """
    fields = json.dumps({**dataclasses.asdict(job), "folder": str(job.folder), "name": name})
    child = [sys.executable, "-P", "-m", "onnxplain.bench.suite.memory", fields]
    with scratch() as cache:
        environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
        done = subprocess.run(child, capture_output=True, text=True, env=environment, check=False)
    return int(done.stdout.splitlines()[-1]) if done.returncode == 0 else None
