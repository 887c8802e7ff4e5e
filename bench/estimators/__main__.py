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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxplain.bench.estimators.costs import costs
from onnxplain.bench.estimators.networks import NETWORKS, QUICK
from onnxplain.bench.estimators.parity import compare
from onnxplain.bench.estimators.rows import ROWS
from onnxplain.bench.networks import photographs
from onnxplain.bench.over_networks import add_options, chosen, keep, keep_row, known, measure

RESULTS = Path(__file__).resolve().parents[1] / "results/estimators.json"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="onnxplain.bench.estimators", description=__doc__)
    parser.add_argument("what", choices=["parity", "costs"])
    add_options(parser, quick="Small networks; costs of few steps.")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    networks = chosen(parser, given, NETWORKS, QUICK)
    if given.what == "costs":
        keep(given.out, "costs", costs(quick=given.quick))
        return
    rows = known(given.out).get("parity", [])
    done = set() if given.again else {_key(row) for row in rows if not row["reason"]}
    measure(
        {name: [row for row in ROWS if row.goes_with(of)] for name, of in networks.items()},
        lambda name, row: (name, *row.key) in done,
        lambda name, rows: compare(name, networks[name], rows, photographs()),
        lambda record: keep_row(given.out, "parity", record, _key, _place),
    )


def _key(record: Mapping[str, Any]) -> tuple[str, str, str]:
    return record["network"], record["row"], record["package"]


def _place(record: Mapping[str, Any]) -> tuple[int, int]:
    """Where a record stands: by network, then by row, as they are declared; others first."""
    name, *key = _key(record)
    networks, rows = [*NETWORKS, *QUICK], [[*row.key] for row in ROWS]
    return (
        networks.index(name) if name in networks else -1,
        rows.index(key) if key in rows else -1,
    )


if __name__ == "__main__":
    main()
