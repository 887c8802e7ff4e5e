"""Differentiate ONNX files by every package that does: what is right, how large, how fast? And
explain by OpenVINO-XAI, beside Grad-CAM.

    python -m onnxplain.bench.rivals [NETWORK … | maps]

Writes bench/results/rivals.json; `python -m onnxplain.bench.readme bench/results/rivals.json PAGE`
renders it, PAGE being README.md, docs/differentiate.md and docs/coming-from.md. A few minutes, and
as many for an environment of OpenVINO-XAI's own, which is made where there is none.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from onnxplain.bench.rivals.environments import interpreter
from onnxplain.bench.rivals.gradients import Record, measure
from onnxplain.bench.rivals.maps import PACKAGE, VERSION, measure_maps
from onnxplain.bench.rivals.networks import NETWORKS
from onnxplain.bench.rivals.packages import packages
from onnxplain.bench.rivals.probes import PROBES, probe
from onnxplain.files import replacing, scratch
from onnxplain.machine import load_average, machine, threads

RESULTS = Path(__file__).resolve().parents[1] / "results/rivals.json"

MAPS = "maps"


def main() -> None:
    parser = argparse.ArgumentParser(prog="onnxplain.bench.rivals", description=__doc__)
    parser.add_argument("what", nargs="*", help="Measure these again; else all.")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    if unknown := {*given.what} - {*NETWORKS, MAPS}:
        parser.error(f"no {', '.join(unknown)}; there are {', '.join([*NETWORKS, MAPS])}")
    found = json.loads(given.out.read_text()) if given.out.is_file() else {}
    if MAPS in given.what or not given.what:
        python = interpreter(PACKAGE, VERSION)
        with scratch() as folder:
            found[MAPS] = measure_maps(python, folder, given.rounds, threads())
        print(json.dumps(found[MAPS], ensure_ascii=False), flush=True)
    if given.what != [MAPS]:
        kept = found.get("records", []) if given.what else []
        found |= _gradients([n for n in given.what if n != MAPS], kept, given.rounds)
    with replacing(given.out) as beside:
        beside.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def _gradients(names: Sequence[str], kept: Iterable[Record], rounds: int) -> Record:
    """What was measured of some networks, or of all, beside what is kept; and of the probes."""
    records = {record["network"]: record for record in kept}
    for name in names or NETWORKS:
        with scratch() as folder:
            records[name] = measure(name, folder, rounds, threads())
        print(json.dumps(records[name], ensure_ascii=False), flush=True)
    with scratch() as folder:
        probes = {name: probe(name, folder) for name in PROBES}
    return {
        "machine": machine(),
        "load average": load_average(),
        "threads": threads(),
        "packages": {package.name: package.version for package in packages()},
        "records": [records[name] for name in NETWORKS if name in records],
        "probes": probes,
    }


if __name__ == "__main__":
    main()
