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
from onnxplain.bench.over_networks import add_options, chosen, measure
from onnxplain.files import replacing
from onnxplain.machine import machine

RESULTS = Path(__file__).resolve().parents[1] / "results/estimators.json"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="onnxplain.bench.estimators", description=__doc__)
    parser.add_argument("what", choices=["parity", "costs"])
    add_options(parser, quick="Small networks; costs of few steps.")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    networks = chosen(parser, given, NETWORKS, QUICK)
    if given.what == "costs":
        _keep(given.out, "costs", costs(quick=given.quick))
        return
    known = _known(given.out)["parity"]
    kept = set() if given.again else {_key(r) for r in known if not r["reason"]}

    def keep(record: dict[str, Any]) -> None:
        others = [r for r in _known(given.out)["parity"] if _key(r) != _key(record)]
        _keep(given.out, "parity", sorted([*others, record], key=_place))

    measure(
        {name: [row for row in ROWS if row.goes_with(of)] for name, of in networks.items()},
        lambda name, row: (name, *row.key) in kept,
        lambda name, rows: compare(name, networks[name], rows, photographs()),
        keep,
    )


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
