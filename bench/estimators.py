"""Estimators beside Captum's: are they the same, and what do they cost?

    python -m onnxplain.bench.estimators bench/results/estimators.json [NETWORK …]

Parity: of one photograph and the class predicted for it, our file on ONNX Runtime in float32, and
Captum in float32, both against Captum in float64, with the same points, noise, draws and baselines.
Where gates are hard, those that open in one precision alone set how near any float32 can be.
Cost: `integrated-gradients` of 50 steps of resnet50, in turns with Captum at several batches.
"""

from __future__ import annotations

import copy
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import captum.attr
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from onnxplain.bench import networks
from onnxplain.errors import OnnxplainError
from onnxplain.export.estimators.noise import noise
from onnxplain.export.estimators.paths import drawn
from onnxplain.export.pipeline import export
from onnxplain.files import replacing, scratch
from onnxplain.machine import load_average, machine
from onnxplain.reference.parity import Parity
from onnxplain.runtime import load
from onnxplain.runtime.inputs.batches import as_batch

Array = NDArray[Any]

NETWORKS = ("resnet50", "vgg16_bn", "densenet121", "vit_b_16", "swin_t", "efficientnet-lite0")
STEPS, SAMPLES, SIGMA = 10, 4, 0.15
COSTS = "resnet50"
BATCHES = (1, 5, 10)
"""Of Captum's internal batch."""

ESTIMATORS: Mapping[str, Mapping[str, Any]] = {
    "integrated-gradients": {"steps": STEPS},
    "smoothgrad": {"samples": SAMPLES},
    "expected-gradients": {"samples": SAMPLES},
}


def by_captum(name: str, module: nn.Module, x: torch.Tensor, target: int, among: Any) -> Array:
    """Captum's attribution with the points, noise and draws of our file."""
    if name == "integrated-gradients":
        found = captum.attr.IntegratedGradients(module).attribute(
            x, 0 * x, target, n_steps=STEPS, internal_batch_size=1
        )
    elif name == "smoothgrad":
        n = torch.from_numpy(noise(SAMPLES, tuple(x.shape[1:]), 0)).to(x.dtype)
        scaled = SIGMA * (x.max() - x.min()) * n
        with mock.patch.object(torch, "normal", return_value=scaled):
            found = captum.attr.NoiseTunnel(captum.attr.Saliency(module)).attribute(
                x, "smoothgrad", nt_samples=SAMPLES, target=target, abs=False
            )
    else:
        alphas, places = drawn(SAMPLES, 0)
        chosen = (places * len(among)).astype(int)
        with (
            mock.patch.object(np.random, "uniform", return_value=alphas),
            mock.patch.object(np.random, "choice", return_value=chosen),
        ):
            found = captum.attr.GradientShap(module).attribute(
                x, torch.from_numpy(among).to(x.dtype), n_samples=SAMPLES, target=target
            )
    return np.asarray(found.detach())


def parity(network: str, module: nn.Module, folder: Path, pictures: Sequence[Any]) -> list[Any]:
    """A record for each estimator."""
    records = []
    double = copy.deepcopy(module).double()
    for name, parameters in ESTIMATORS.items():
        path = folder / "estimated.onnx"
        export(
            module,
            path,
            example=torch.zeros(1, 3, 224, 224),
            method="gradient",
            estimator=name,
            parameters=parameters,
            check=False,
        )
        explainer = load(path, "cpu")
        images, _ = as_batch(pictures, explainer.metadata.preprocessing)
        given: dict[str, Any] = {"baselines": images[1:]} if name == "expected-gradients" else {}
        found = explainer(images[:1], **given)
        target, x = int(found.targets[0]), torch.from_numpy(images[:1])
        exact = by_captum(name, double, x.double(), target, images[1:])
        single = by_captum(name, module, x, target, images[1:])
        records.append(
            {
                "network": network,
                "trained": network in networks.TRAINED,
                "estimator": name,
                "parameters": dict(parameters),
                "relative L2": Parity.of(found.pullback, exact).relative_l2,
                "cosine": Parity.of(found.pullback, exact).cosine,
                "Captum float32 relative L2": Parity.of(single, exact).relative_l2,
                "of Captum float32, relative L2": Parity.of(found.pullback, single).relative_l2,
            }
        )
        print(json.dumps(records[-1]), flush=True)
    return records


def costs(module: nn.Module, folder: Path, pictures: Sequence[Any], turns: int = 3) -> Any:
    """Seconds, bytes and completeness of 50 steps, the contenders in turns."""
    plain, example = folder / "plain.onnx", torch.zeros(1, 3, 224, 224)
    export(module, plain, example=example, method="gradient", check=False)
    one = load(plain, "cpu")
    images, _ = as_batch(pictures[:1], one.metadata.preprocessing)
    x = torch.from_numpy(images)
    target = int(one(images).targets[0])
    contenders: dict[str, Callable[[], Any]] = {"one explanation": partial(one, images)}
    for chunk in (1, 5):
        file = folder / f"chunk{chunk}.onnx"
        export(
            module,
            file,
            example=example,
            method="gradient",
            estimator="integrated-gradients",
            parameters={"steps": 50, "chunk": chunk},
            check=False,
        )
        contenders[f"onnxplain, chunk {chunk}"] = partial(load(file, "cpu"), images)
    for batch in BATCHES:
        contenders[f"Captum, batch {batch}"] = partial(
            captum.attr.IntegratedGradients(module).attribute,
            x,
            0 * x,
            target,
            n_steps=50,
            internal_batch_size=batch,
            return_convergence_delta=True,
        )
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    answers = {}
    for _ in range(turns):
        for name, run in contenders.items():
            start = time.perf_counter()
            answers[name] = run()
            seconds[name].append(time.perf_counter() - start)
    ours = answers["onnxplain, chunk 1"]
    theirs, delta = answers["Captum, batch 1"]
    gained = float(ours.pullback.sum() - ours.convergence_delta[0])
    return {
        "network": COSTS,
        "steps": 50,
        "load average": load_average(),
        "seconds": {name: sorted(each)[len(each) // 2] for name, each in seconds.items()},
        "bytes": {"one explanation": plain.stat().st_size, "estimated": file.stat().st_size},
        "convergence delta": float(ours.convergence_delta[0]),
        "Captum's": float(delta[0]),
        "of the gain": abs(float(ours.convergence_delta[0]) / gained),
        "relative L2 to Captum float32": Parity.of(
            ours.pullback, theirs.detach().numpy()
        ).relative_l2,
    }


def main(result: str, *names: str) -> None:
    path = Path(result)
    known = json.loads(path.read_text()) if path.exists() else {"parity": [], "costs": None}
    pictures = networks.photographs()
    for network in names or NETWORKS:
        module = networks.network(network, pictures)
        with scratch() as folder:
            try:
                if network == COSTS:
                    known["costs"] = costs(module, folder, pictures)
                    print(json.dumps(known["costs"]), flush=True)
                made = parity(network, module, folder, pictures)
            except OnnxplainError as error:
                sys.exit(f"{network}: {error}")
        known["parity"] = [r for r in known["parity"] if r["network"] != network] + made
        known["parity"].sort(key=lambda record: NETWORKS.index(record["network"]))
        with replacing(path) as beside:
            beside.write_text(json.dumps({"machine": machine(), **known}, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
