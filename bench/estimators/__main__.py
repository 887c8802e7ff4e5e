"""Explanations beside Captum, pytorch-grad-cam, zennit and lxt: the same, and at what cost?

    python -m onnxplain.bench.estimators parity [NETWORK …] [--quick] [--again]
    python -m onnxplain.bench.estimators costs

Both write bench/results/estimators.json, each row as it is done; what is there is not measured
again. `python -m onnxplain.bench.readme bench/results/estimators.json docs/parity.md` renders it.
`parity` is of one photograph, in float64 on both sides, and may run on a busy machine; `costs` is
of integrated gradients of 50 steps of ResNet-50, and wants a quiet one for about five minutes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from onnxplain.bench.estimators.costs import costs
from onnxplain.bench.estimators.networks import NETWORKS, QUICK
from onnxplain.bench.estimators.parity import compare
from onnxplain.bench.estimators.rows import ROWS
from onnxplain.bench.networks import photographs
from onnxplain.bench.progress import progress_bar
from onnxplain.files import replacing
from onnxplain.machine import machine

RESULTS = Path(__file__).resolve().parents[1] / "results/estimators.json"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="onnxplain.bench.estimators", description=__doc__)
    parser.add_argument("what", choices=["parity", "costs"])
    parser.add_argument("networks", nargs="*", help="These alone; else all.")
    parser.add_argument("--quick", action="store_true", help="Small networks; costs of few steps.")
    parser.add_argument("--again", action="store_true", help="Also what has been measured.")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    networks = QUICK if given.quick else NETWORKS
    if unknown := {*given.networks} - {*networks}:
        parser.error(f"no network {', '.join(unknown)}; there are {', '.join(networks)}")
    if given.what == "costs":
        _keep(given.out, "costs", costs(quick=given.quick))
        return
    names = given.networks or list(networks)
    wanted = [(n, row) for n in names for row in ROWS if row.goes_with(networks[n])]
    known = _known(given.out)["parity"]
    done = set() if given.again else {_key(r) for r in known if not r["reason"]}
    with progress_bar() as progress:
        task = progress.add_task("", total=len(wanted))
        progress.advance(task, sum((n, *row.key) in done for n, row in wanted))
        for name in names:
            rows = [row for n, row in wanted if n == name and (n, *row.key) not in done]
            progress.update(task, description=name)
            for record in compare(name, networks[name], rows, photographs()) if rows else ():
                others = [r for r in _known(given.out)["parity"] if _key(r) != _key(record)]
                _keep(given.out, "parity", sorted([*others, record], key=_place))
                progress.advance(task)


def _key(record: dict[str, Any]) -> tuple[str, str, str]:
    return record["network"], record["row"], record["package"]


def _place(record: dict[str, Any]) -> tuple[int, int]:
    """Where a record stands: by network, then by row, as they are declared; others first."""
    name, *key = _key(record)
    networks, rows = [*NETWORKS, *QUICK], [[*row.key] for row in ROWS]
    return (
        networks.index(name) if name in networks else -1,
        rows.index(key) if key in rows else -1,
    )


def _known(path: Path) -> dict[str, Any]:
    empty: dict[str, Any] = {"parity": [], "costs": None}
    return empty | (json.loads(path.read_text()) if path.is_file() else {})


def _keep(path: Path, key: str, value: Any) -> None:
    found = {**_known(path), "machine": machine(), key: value}
    with replacing(path) as beside:
        beside.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
