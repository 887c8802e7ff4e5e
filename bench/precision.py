"""How right every provider is in every precision that this machine has.

    python -m onnxplain.bench.precision bench/results/precision.json [NETWORK …]

Seven networks (`bench.networks`) on three photographs, against the PyTorch reference in float64.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from onnxplain.bench import networks
from onnxplain.bench.networks import TRAINED
from onnxplain.contract.explain import LOGITS, PULLBACK
from onnxplain.errors import BackendError
from onnxplain.export.pipeline import export
from onnxplain.files import replacing, scratch
from onnxplain.machine import machine
from onnxplain.reference import pytorch
from onnxplain.reference.parity import Parity
from onnxplain.runtime import Explainer, load
from onnxplain.runtime.inputs.batches import as_batch
from onnxplain.runtime.sessions import PROVIDERS, usable

NETWORKS: dict[str, dict[str, Any]] = {
    "efficientnet-lite0": {"method": "excitation", "temperature": 1.0},
    "resnet50": {"method": "excitation"},
    "vgg11_bn": {"method": "excitation"},
    "densenet121": {"method": "excitation"},
    "mobilenet_v3_large": {"method": "semantic"},
    "convnext_tiny": {"method": "semantic"},
    "vit_b_16": {"method": "semantic"},
}
"""Network → the method that fits its activations."""

FLOAT32_COSINE, HALF_COSINE = 0.99999, 0.99
"""The least that is right: in float32 always, in halves with trained weights."""


def measure(network: str, folder: Path, pictures: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """A record for each provider and precision here: cosine and relative error, least and largest
    of the photographs'."""
    module = networks.network(network, pictures)
    path = folder / f"{network}.explain.onnx"
    if network in TRAINED:
        export(network, path, **NETWORKS[network])
    else:
        export(module, path, example=torch.zeros(1, 3, 224, 224), **NETWORKS[network])
    right = load(path, "cpu")
    images, _ = as_batch(pictures, right.metadata.preprocessing)
    targets = right(images, batch_size=1).targets
    expected = pytorch.explain(
        copy.deepcopy(module).double(),
        torch.from_numpy(images).double(),
        torch.from_numpy(targets),
        right.metadata.method,
        right.metadata.parameters.get("temperature"),
    )
    for provider in PROVIDERS:
        for precision in usable(provider):
            try:
                explainer = load(path, provider, precision)
            except BackendError as error:
                if precision == "int8":  # the networks here are not quantised
                    continue
                raise error
            yield {
                "network": network,
                "method": right.metadata.method,
                "trained": network in TRAINED,
                "provider": provider,
                "device": explainer.backend.device,
                "precision": precision,
                **_compared(explainer, images, targets, [t.numpy() for t in expected]),
            }


def _compared(
    explainer: Explainer,
    images: NDArray[Any],
    targets: NDArray[np.int64],
    expected: Sequence[NDArray[Any]],
) -> dict[str, float]:
    found = explainer(images, targets, batch_size=explainer.backend.signature.batch or 1)
    record = {}
    pairs = ((found.logits, expected[0]), (found.pullback, expected[1]))
    for name, (computed, right) in zip((LOGITS, PULLBACK), pairs, strict=True):
        each = [Parity.of(a, b) for a, b in zip(computed, right, strict=True)]
        record[f"{name} cosine"] = min(parity.cosine for parity in each)
        record[f"{name} relative error"] = max(parity.relative_l2 for parity in each)
    return record


def right(record: dict[str, Any]) -> bool:
    """Whether a record is within the bounds; half precision has one with trained weights alone."""
    least = FLOAT32_COSINE if record["precision"] == "float32" else HALF_COSINE
    bound = record["precision"] == "float32" or record["trained"]
    cosines = (record[f"{LOGITS} cosine"], record[f"{PULLBACK} cosine"])
    return not bound or all(cosine >= least for cosine in cosines)  # false of a NaN


def main(result: str, *names: str) -> None:
    pictures = networks.photographs()
    path = Path(result)
    known = json.loads(path.read_text())["records"] if path.exists() else []
    records = [r for r in known if r["network"] not in (names or NETWORKS)]
    for network in names or NETWORKS:
        with scratch() as folder:
            for record in measure(network, folder, pictures):
                records.append(record)
                print(json.dumps(record) + ("" if right(record) else "  OUT OF BOUNDS"), flush=True)
        records.sort(key=lambda record: list(NETWORKS).index(record["network"]))
        with replacing(path) as beside:
            beside.write_text(
                json.dumps({"machine": machine(), "records": records}, indent=1) + "\n"
            )
    if not all(map(right, records)):
        sys.exit("a figure is out of bounds")


if __name__ == "__main__":
    main(*sys.argv[1:])
