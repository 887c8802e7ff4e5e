"""The sweep over the zoo: a process for each network, so that none can take the others down."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TypeAlias

from onnxplain.bench.zoo.networks import LARGE
from onnxplain.files import replacing
from onnxplain.machine import machine
from onnxplain.version import __version__

Results = dict[str, Any]
Merge: TypeAlias = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]


def read(path: Path) -> Results:
    """The results so far, of an earlier sweep that may have been cut off."""
    results: Results = json.loads(path.read_text()) if path.exists() else {"networks": {}}
    return results


def sweep(
    names: Sequence[str],
    path: Path,
    jobs: int,
    timeout: float,
    progress: Callable[[str, dict[str, Any]], None],
    command: Sequence[str] = ("one",),
    merged: Merge = lambda before, made: made,
) -> None:
    """Make the entries of `names`, each written to the JSON file `path` as soon as it is there.

    Args:
        jobs: networks at a time, each on its share of the cores; the largest run alone.
        timeout: seconds for one network; after them it gets an entry that says so.
        progress: called with each name and its entry.
        command: of `python -m onnxplain.bench.zoo`, what prints a name's entry.
        merged: of an entry that is there and a new one, what is kept; the new one by default.
    """
    cores = max((os.cpu_count() or 1) // jobs, 1)
    large = [name for name in names if name in LARGE]
    for group, at_once in (([n for n in names if n not in large], jobs), (large, 1)):
        with ThreadPoolExecutor(at_once) as pool:
            threads = cores if at_once == jobs else os.cpu_count() or 1
            running = {pool.submit(_apart, command, name, threads, timeout): name for name in group}
            try:
                for done in as_completed(running):
                    _write(path, running[done], done.result(), merged)
                    progress(running[done], done.result())
            except KeyboardInterrupt:
                pool.shutdown(cancel_futures=True)
                raise


def _apart(command: Sequence[str], name: str, threads: int, timeout: float) -> dict[str, Any]:
    """The entry of one network, made in a process of its own."""
    module = [sys.executable, "-P", "-m", "onnxplain.bench.zoo"]
    child = [*module, *command, name, "--threads", str(threads)]
    try:
        run = subprocess.run(child, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return {"reason": f"took longer than {timeout:.0f} s"}
    if run.returncode:
        end = run.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        return {"reason": f"the process ended with status {run.returncode}: {end[0][:300]}"}
    made: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return made


def _write(path: Path, name: str, made: dict[str, Any], merged: Merge) -> None:
    results = read(path)
    if name in results["networks"]:
        made = merged(results["networks"][name], made)
    results["onnxplain"], results["machine"] = __version__, machine()
    results["networks"][name] = made
    with replacing(path) as beside:
        beside.write_text(json.dumps(results, indent=1) + "\n")
