"""How right every provider is in every precision that this machine has.

    python -m onnxplain.bench.precision bench/results/precision.json [NETWORK …]

Seven networks on three photographs, against the PyTorch reference in float64. EfficientNet-Lite0
has its trained weights; the others, whose weights come with no package, random ones. Then their
batch normalisations get the statistics of the photographs, without which activations grow or
vanish with depth as they do in no network in use; and what an initialisation switches off (the
head of a ViT is 0, a ConvNeXt's blocks count 1e-6) is switched on.
"""

from __future__ import annotations

import copy
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from onnxplain.bench import reference
from onnxplain.bench.latency import machine
from onnxplain.bench.parity import Parity
from onnxplain.contract import LOGITS, PULLBACK
from onnxplain.errors import BackendError
from onnxplain.export.pipeline import export
from onnxplain.export.sources.source import torch_network
from onnxplain.runtime import Explainer, load
from onnxplain.runtime.backends import PROVIDERS, usable
from onnxplain.runtime.batches import as_batch

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

TRAINED = ("efficientnet-lite0",)
PHOTOGRAPHS = ("chelsea", "coffee", "rocket")

FLOAT32_COSINE, HALF_COSINE = 0.99999, 0.99
"""The least that is right: in float32 always, in halves with trained weights."""


def measure(network: str, folder: Path, photographs: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """A record for each provider and precision here: cosine and relative error, least and largest
    of the photographs'."""
    weights = "DEFAULT" if network in TRAINED else "none"
    module = torch_network(network, weights, (224, 224)).module
    path = folder / f"{network}.explain.onnx"
    if network in TRAINED:
        export(network, path, **NETWORKS[network])
    else:
        example = torch.zeros(1, 3, 224, 224)
        _settle(module, photographs)
        export(module, path, example=example, **NETWORKS[network])
    right = load(path, "cpu")
    images, _ = as_batch(photographs, right.metadata.preprocessing)
    targets = right(images, batch_size=1).targets
    expected = reference.explain(
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
    for name, ours, theirs in zip(
        (LOGITS, PULLBACK), (found.logits, found.pullback), expected, strict=True
    ):
        each = [Parity.of(a, b) for a, b in zip(ours, theirs, strict=True)]
        record[f"{name} cosine"] = min(parity.cosine for parity in each)
        record[f"{name} relative error"] = max(parity.relative_l2 for parity in each)
    return record


def _settle(module: nn.Module, photographs: Sequence[Any]) -> None:
    """Give the batch normalisations the photographs' statistics, and zeros a value."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith("layer_scale"):
                parameter.fill_(0.1)
            elif parameter.ndim > 1 and not parameter.any():
                nn.init.xavier_uniform_(parameter)
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    crops = [photograph.resize((224, 224)) for photograph in photographs]
    pixels = np.stack([np.asarray(crop, np.float32) for crop in crops]).transpose(0, 3, 1, 2)
    for norm in norms:
        norm.train()
        norm.momentum = None
    with torch.no_grad():
        module(torch.from_numpy((pixels / 255 - 0.45) / 0.225))
    for norm in norms:
        norm.eval()


def right(record: dict[str, Any]) -> bool:
    """Whether a record is within the bounds; half precision has one with trained weights alone."""
    least = FLOAT32_COSINE if record["precision"] == "float32" else HALF_COSINE
    bound = record["precision"] == "float32" or record["trained"]
    cosines = (record[f"{LOGITS} cosine"], record[f"{PULLBACK} cosine"])
    return not bound or all(cosine >= least for cosine in cosines)  # false of a NaN


def main(result: str, *networks: str) -> None:
    import skimage.data
    from PIL import Image

    photographs = [Image.fromarray(getattr(skimage.data, name)()) for name in PHOTOGRAPHS]
    path = Path(result)
    known = json.loads(path.read_text())["records"] if path.exists() else []
    records = [r for r in known if r["network"] not in (networks or NETWORKS)]
    for network in networks or NETWORKS:
        with tempfile.TemporaryDirectory(prefix="onnxplain-") as folder:
            for record in measure(network, Path(folder), photographs):
                records.append(record)
                print(json.dumps(record) + ("" if right(record) else "  OUT OF BOUNDS"), flush=True)
        records.sort(key=lambda record: list(NETWORKS).index(record["network"]))
        path.write_text(json.dumps({"machine": machine(), "records": records}, indent=1) + "\n")
    if not all(map(right, records)):
        sys.exit("a figure is out of bounds")


if __name__ == "__main__":
    main(*sys.argv[1:])
