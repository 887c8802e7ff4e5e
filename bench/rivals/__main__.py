"""Differentiate ONNX files by every package that does: what is right, how large, how fast?

    python -m onnxplain.bench.rivals [NETWORK …]

Writes bench/results/rivals.json; `python -m onnxplain.bench.readme bench/results/rivals.json
docs/differentiate.md` renders it. A few minutes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from onnxplain.bench.rivals.gradients import measure
from onnxplain.bench.rivals.networks import NETWORKS
from onnxplain.bench.rivals.packages import packages
from onnxplain.bench.rivals.probes import PROBES, probe
from onnxplain.files import replacing
from onnxplain.machine import load_average, machine, threads

RESULTS = Path(__file__).resolve().parents[1] / "results/rivals.json"


def main() -> None:
    parser = argparse.ArgumentParser(prog="onnxplain.bench.rivals", description=__doc__)
    parser.add_argument("networks", nargs="*", help="Measure these again; else all.")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    if unknown := {*given.networks} - {*NETWORKS}:
        parser.error(f"no network {', '.join(unknown)}; there are {', '.join(NETWORKS)}")
    known = json.loads(given.out.read_text())["records"] if given.out.is_file() else []
    records = {record["network"]: record for record in known if given.networks}
    for name in given.networks or NETWORKS:
        with tempfile.TemporaryDirectory(prefix="onnxplain-") as folder:
            records[name] = measure(name, Path(folder), given.rounds, threads())
        print(json.dumps(records[name], ensure_ascii=False), flush=True)
    with tempfile.TemporaryDirectory(prefix="onnxplain-") as folder:
        probes = {name: probe(name, Path(folder)) for name in PROBES}
    found = {
        "machine": machine(),
        "load average": load_average(),
        "threads": threads(),
        "packages": {package.name: package.version for package in packages()},
        "records": [records[name] for name in NETWORKS if name in records],
        "probes": probes,
    }
    with replacing(given.out) as beside:
        beside.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
