"""How far our files, evaluated in float64, are from other packages in float64."""

from __future__ import annotations

import copy
import gc
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from onnxplain.bench.estimators.networks import Network, merged
from onnxplain.bench.estimators.peers import MEAN, STD, Array, Asked
from onnxplain.bench.estimators.rows import Row
from onnxplain.bench.networks import TRAINED
from onnxplain.contract.estimator import BASELINES
from onnxplain.contract.explain import IMAGE, TARGET
from onnxplain.errors import OnnxplainError
from onnxplain.export.pipeline import export
from onnxplain.export.sources.source import from_module
from onnxplain.files import scratch
from onnxplain.reference.float64 import evaluate_in_float64
from onnxplain.reference.parity import Parity

BOUND = 1e-4
"""Of the relative L2, above which a difference needs a reason."""

CLASSES = 5
"""A map may be 0 throughout, of which all are equal: then the next class is asked for, of these."""


def compare(
    name: str, network: Network, rows: Sequence[Row], pictures: Sequence[Any]
) -> Iterator[dict[str, Any]]:
    """A record for each of the rows, of the first of the pictures.

    The network is traced once as it is, and once with its norms merged: the packages that get it so
    have each weight to the bit as our file has it, and no hard gate is open on one side alone.
    """
    module, images = network.module(), as_input(pictures, network.size)
    modules = {False: module, True: merged(module)}
    with torch.no_grad():
        ranking = module(torch.from_numpy(images[:1]))[0].argsort(descending=True).tolist()
    with scratch() as folder:
        sources = {is_merged: folder / f"forward.{is_merged}.onnx" for is_merged in modules}
        example = torch.zeros(2, *images.shape[1:])
        for is_merged, path in sources.items():
            ir.save(from_module(modules[is_merged], example).model, path)
        for row in rows:
            gc.collect()  # models of the row before lie in cycles, VGG-16's of some GB
            start = time.perf_counter()
            record = {
                "network": name,
                "trained": name in TRAINED,
                "size": network.size,
                "row": row.name,
                "package": row.package,
            }
            of = modules[row.merged], sources[row.merged]
            record |= _measured(row, network, *of, images, ranking[:CLASSES])
            yield record | {"seconds": time.perf_counter() - start}


def as_input(pictures: Sequence[Any], size: int) -> Array:
    """[N, 3, size, size], float32, in ImageNet's normalisation."""
    pixels = np.stack([np.asarray(picture.resize((size, size))) for picture in pictures]) / 255
    return np.moveaxis((pixels - MEAN) / STD, -1, 1).astype(np.float32)


def _measured(
    row: Row,
    network: Network,
    module: torch.nn.Module,
    source: Path,
    images: Array,
    targets: Sequence[int],
) -> dict[str, Any]:
    """The "target", "relative L2" and "cosine", or a "reason" why there is none."""
    path = source.with_name("row.explain.onnx")
    layer = {"layer": getattr(network, row.at)} if row.at else {}
    options: dict[str, Any] = {"parameters": dict(row.parameters), **layer}
    try:
        export(
            source,
            path,
            method=row.method,
            estimator=row.estimator,
            mean=MEAN,
            std=STD,
            check=False,
            **options,
        )
        feeds = {IMAGE: images[:1]}
        if row.estimator == "expected-gradients":
            feeds[BASELINES] = images[1:]
        for target in targets:
            asked = feeds | {TARGET: np.array([target])}
            found = row.read(evaluate_in_float64(path, asked, row.outputs))
            if found.any():
                break
        else:
            return {"reason": f"it is 0 throughout for {len(targets)} classes"}
        x = torch.from_numpy(images).double()
        double = copy.deepcopy(module).double()
        expected = row.peer(
            Asked(network, double, x[:1], target, x[1:], {**row.parameters, **layer})
        )
    except OnnxplainError as error:
        return {"reason": str(error)}
    parity = Parity.of(found, expected)
    return {
        "target": target,
        "relative L2": parity.relative_l2,
        "cosine": parity.cosine,
        "reason": None,
    }
