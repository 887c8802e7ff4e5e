"""Throughput of the signal autoencoder: `python -m onnxplain.bench.signal_throughput OUT.json`.

The compiled graph on ONNX Runtime and OpenVINO against PyTorch eager, in interleaved rounds, each
on the same threads, with parity to PyTorch.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from onnxplain.bench.networks import photographs
from onnxplain.contract.explain import Preprocessing
from onnxplain.contract.signals import RECONSTRUCTION
from onnxplain.files import replacing, scratch
from onnxplain.machine import machine, threads
from onnxplain.reference.parity import Parity
from onnxplain.runtime.inputs.batches import as_batch
from onnxplain.runtime.sessions import PROVIDERS
from onnxplain.signal.autoencoder import Autoencoder, Design
from onnxplain.signal.compiled import Graph, open_graph
from onnxplain.signal.export import export_autoencoder
from onnxplain.timing import interleaved

SIZE, BATCHES, ROUNDS, WARMUP = 224, (1, 4), 10, 2
EAGER = "PyTorch eager"
_PROVIDERS = {"ONNX Runtime": "cpu", "OpenVINO": "openvino"}


def measure() -> dict[str, Any]:
    """What is written: "machine", "threads", and "records" for each batch, ready for JSON.

    A record has "batch", "rounds" and "rows": of each engine its "name", its `Timing`, "images per
    second", and of the compiled ones "÷ PyTorch eager", their throughput by PyTorch's, and "parity"
    to it. The weights are random, which the time does not depend on.
    """
    cores = threads()
    torch.set_num_threads(cores)
    torch.manual_seed(0)
    network = Autoencoder(Design.of("segnet", SIZE, 3)).eval()
    with scratch() as folder:
        path = folder / "signal.onnx"
        export_autoencoder(network, path)
        graphs = {
            name: open_graph(path, provider, cores)
            for name, provider in _PROVIDERS.items()
            if PROVIDERS[provider].missing() is None
        }
        records = []
        for batch in BATCHES:
            pixels = _pixels(batch)
            runs = {name: partial(_compiled, graph, pixels) for name, graph in graphs.items()}
            records.append(_record({EAGER: partial(_eager, network, pixels), **runs}, batch))
    about = {"network": "segnet", "size": SIZE, "threads": cores}
    return {"machine": machine(), **about, "records": records}


def _pixels(batch: int) -> NDArray[np.float32]:
    """Photographs in [0, 1], the few there are again and again."""
    pre = Preprocessing(SIZE, SIZE, SIZE, (0.0,) * 3, (1.0,) * 3)
    found, _ = as_batch(photographs(), pre)
    return np.ascontiguousarray(found[np.arange(batch) % len(found)])


def _eager(network: Autoencoder, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        return network(torch.from_numpy(pixels)).numpy()


def _compiled(graph: Graph, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    return graph.run(pixels)[RECONSTRUCTION]


def _record(runs: Mapping[str, Callable[[], NDArray[np.float32]]], batch: int) -> dict[str, Any]:
    right = runs[EAGER]()
    parity = {name: Parity.of(run(), right) for name, run in runs.items() if name != EAGER}
    timings = interleaved(runs, ROUNDS, WARMUP)
    rows = []
    for name, timing in timings.items():
        row = {"name": name, **dataclasses.asdict(timing)}
        row["images per second"] = batch / timing.median
        if name in parity:
            row["÷ PyTorch eager"] = timings[EAGER].median / timing.median
            row["parity"] = dataclasses.asdict(parity[name])
        rows.append(row)
    return {"batch": batch, "rounds": ROUNDS, "rows": rows}


def main(out: str) -> None:
    measured = measure()
    with replacing(Path(out)) as beside:
        beside.write_text(json.dumps(measured, indent=1, ensure_ascii=False) + "\n")
    for record in measured["records"]:
        for row in record["rows"]:
            ratio = row.get("÷ PyTorch eager")
            beside_eager = f", {ratio:.2f} × PyTorch eager's" if ratio else ""
            print(
                f"batch {record['batch']}, {row['name']}: "
                f"{row['images per second']:.2f} images/s{beside_eager}"
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
