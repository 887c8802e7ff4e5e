"""All figures of one GPU in one JSON: python -m onnxplain.bench.gpu bench/results/gpu.json."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from onnxplain.bench import launches, networks, precision
from onnxplain.bench.gpu.kernels import kernel_records
from onnxplain.bench.suite.measure import Scope
from onnxplain.bench.suite.suite import Plan, suite
from onnxplain.files import replacing, scratch
from onnxplain.machine import threads

NETWORKS = ("resnet50", "efficientnet-lite0")
BATCHES = (1, 8, 64)


def sections(
    device: str, names: Sequence[str], batches: Sequence[int], rounds: int
) -> Mapping[str, Callable[[], Any]]:
    """What is measured, by its name in the JSON; what matters most first."""

    def times() -> Any:
        scope = Scope(peers=False, compiled=device == "cuda")
        plan = Plan(names, batches, rounds, scope, False, threads(), device)
        return suite(plan, None, lambda what, done, total: print(f"  {what}", flush=True))

    def parity() -> Iterator[dict[str, Any]]:
        pictures = networks.photographs()
        for name in names:
            with scratch() as folder:
                yield from precision.measure(name, folder, pictures)

    def counts() -> Iterator[dict[str, Any]]:
        for name in names:
            method = launches.NETWORKS.get(name, "excitation")
            yield asdict(launches.launches(name, method))

    return {
        "times": times,
        "kernels": lambda: list(kernel_records(device, batches, max(rounds, 5))),
        "launches": lambda: list(counts()),
        "parity": lambda: list(parity()),
    }


def measure(path: Path, parts: Mapping[str, Callable[[], Any]], device: str) -> dict[str, Any]:
    """Run the sections; the file has what there is after each, and what failed in "problems"."""
    found: dict[str, Any] = {"device": device, "seconds": {}, "problems": {}}
    for name, section in parts.items():
        print(name, flush=True)
        start = time.perf_counter()
        try:
            found[name] = section()
        except Exception as error:
            found["problems"][name] = str(error)
            print(f"  failed: {error}")
        found["seconds"][name] = round(time.perf_counter() - start, 1)
        print(f"  {found['seconds'][name]} s", flush=True)
        with replacing(path) as beside:
            beside.write_text(json.dumps(found, indent=1) + "\n")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="onnxplain.bench.gpu", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args()
    parts = sections(given.device, given.networks, given.batches, given.rounds)
    measure(given.out, parts, given.device)


if __name__ == "__main__":
    main()
