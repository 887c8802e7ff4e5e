"""Steps per second of a feature visualisation: `python -m onnxplain.bench.vital_steps OUT.json`.

The step graph on ONNX Runtime and OpenVINO against PyTorch eager, the reference of
`onnxplain.reference.pytorch.vital`, each on its own from the same noise, in interleaved rounds
on the same threads. The curves of the loss lie over one another, or the figures mean nothing: they
are kept beside them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from onnxplain.bench.networks import photographs
from onnxplain.contract.explain import IMAGE, Preprocessing
from onnxplain.contract.steps import STEPS, StepMetadata
from onnxplain.export.sources.source import torch_network
from onnxplain.files import replacing, scratch
from onnxplain.machine import machine, threads
from onnxplain.reference.pytorch.vital import Network, Objective, moved
from onnxplain.runtime.sessions import open_session, usable
from onnxplain.timing import interleaved
from onnxplain.vital.graphs.features import write_features
from onnxplain.vital.graphs.step import write_step
from onnxplain.vital.graphs.subject import read_subject
from onnxplain.vital.optimisation import Optimisation
from onnxplain.vital.recipes import recipe_of
from onnxplain.vital.references import Templates, find_templates
from onnxplain.vital.schedule import rates, shifts
from onnxplain.vital.settings import Settings, with_recipe

NETWORKS = {"resnet50": "none", "efficientnet-lite0": "DEFAULT"}
"""Networks and their weights: those that packages ship."""

CHANNEL, NEURON_LAYERS = 3, {"resnet50": "layer3", "efficientnet-lite0": "_blocks.10"}
ROUNDS, STEPS_EACH, WARM_UP = 10, 4, 1
EAGER = "PyTorch eager"
_ENGINES = {
    "ONNX Runtime": ("cpu", "float32"),
    "OpenVINO": ("openvino", "float32"),
    "OpenVINO bfloat16": ("openvino", "bfloat16"),
}


class Eager:
    """The reference's optimisation, step by step, to be timed."""

    def __init__(
        self,
        network: Network,
        objective: Objective,
        start: torch.Tensor,
        settings: Settings,
        pre: Preprocessing,
        channels: torch.Tensor | None,
    ) -> None:
        self.losses: list[float] = []
        self._network, self._objective, self._channels = network, objective, channels
        self._x = start.clone().requires_grad_()
        self._adam = torch.optim.Adam([self._x], lr=1.0, betas=(0.5, 0.9), eps=1e-8)
        self._tables = rates(settings), shifts(settings)
        mean, std = (torch.tensor(v).reshape(-1, 1, 1) for v in (pre.mean, pre.std))
        self._bounds = (0 - mean) / std, (1 - mean) / std

    def advance(self, steps: int) -> None:
        for _ in range(steps):
            t = len(self.losses)
            rates, shifts = self._tables
            self._adam.param_groups[0]["lr"] = float(rates[t])
            seen = moved(self._x, tuple(shifts[t].tolist()), mirrored=False)
            loss = self._objective.loss(self._network, seen, self._channels)
            self._adam.zero_grad()
            loss.sum().backward()  # type: ignore[no-untyped-call]
            self._adam.step()
            with torch.no_grad():
                self._x.copy_(
                    torch.maximum(torch.minimum(self._x, self._bounds[1]), self._bounds[0])
                )
            self.losses.append(loss[0].item())


def measure(networks: Sequence[str] = tuple(NETWORKS)) -> dict[str, Any]:
    """What is written: "machine", "threads", and a record for each network and kind of neuron.

    A record has "network", "neuron" ("class" or the layer's name), "steps", and "rows": of each
    engine its "name", "seconds per step" (the median of the rounds), "÷ PyTorch eager" (its steps
    per second by PyTorch's), "loss" (of each step) and "apart" (how far that of the first step is
    from PyTorch's, a share of it; later ones drift: Adam's steps hardly know a gradient's size).
    """
    cores = threads()
    torch.set_num_threads(cores)
    records = [_record(network, inner, cores) for network in networks for inner in (False, True)]
    return {"machine": machine(), "threads": cores, "rounds": ROUNDS, "records": records}


def _record(name: str, inner: bool, cores: int) -> dict[str, Any]:
    weights, recipe = NETWORKS[name], recipe_of(name)
    assert recipe is not None
    layer = NEURON_LAYERS[name] if inner else None
    total = (WARM_UP + ROUNDS) * STEPS_EACH
    settings = Settings(steps=total, references=4)
    subject = read_subject(name, weights=weights, layers=recipe.layers, neuron=layer)
    settings = with_recipe(settings, name, tuple(subject.layers.values()), inner)
    with scratch() as folder:
        features, step = folder / "features.onnx", folder / "step.onnx"
        write_features(subject, features)
        write_step(subject, step)
        files = []
        for number, photograph in enumerate(photographs()):
            files.append(folder / f"{number}.png")
            Image.fromarray(np.asarray(photograph)).save(files[-1])
        graph = open_session(features, "cpu", cores)
        layers = StepMetadata.from_props(graph.metadata).layers
        channel = CHANNEL if inner else None
        templates = find_templates(graph, layers, subject.pre, files, 4, 0, channel=channel)
        running: dict[str, Any] = {}
        for label, (provider, precision) in _ENGINES.items():
            if precision in usable(provider):
                sizes = {"batch": 1, STEPS: total}
                compiled = open_session(step, provider, cores, precision, sizes)
                neurons = [CHANNEL if inner else 0]
                running[label] = Optimisation(compiled, settings, neurons, [templates])
        start = next(iter(running.values())).state
    module = torch_network(name, weights).module.requires_grad_(False)
    running[EAGER] = Eager(
        Network(module, tuple(subject.layers.values()), layer),
        _objective(templates, settings),
        torch.from_numpy(start[IMAGE]),
        settings,
        subject.pre,
        torch.tensor([CHANNEL]) if inner else None,
    )
    timings = interleaved(
        {label: partial(one.advance, STEPS_EACH) for label, one in running.items()}, ROUNDS, WARM_UP
    )
    seconds = {label: timing.median / STEPS_EACH for label, timing in timings.items()}
    right = np.array(running[EAGER].losses)
    rows = []
    for label, one in running.items():
        loss = right if label == EAGER else one.losses[:, 0].astype(float)
        rows.append(
            {
                "name": label,
                "seconds per step": seconds[label],
                "÷ PyTorch eager": seconds[EAGER] / seconds[label],
                "apart": float(abs(loss[0] - right[0]) / right[0]),
                "loss": [float(value) for value in loss],
            }
        )
    return {"network": name, "neuron": layer or "class", "steps": total, "rows": rows}


def _objective(templates: Templates, settings: Settings) -> Objective:
    sorted_ = [torch.from_numpy(t)[None] for t in templates.sorted]
    importances = [torch.from_numpy(i)[None] for i in templates.importances]
    assert settings.weights is not None
    assert settings.priors is not None
    ones = [torch.ones(t.shape[:2]) for t in sorted_]
    return Objective(sorted_, importances or ones, settings.weights, settings.priors)


def main(out: str, *networks: str) -> None:
    measured = measure(networks or tuple(NETWORKS))
    with replacing(Path(out)) as beside:
        beside.write_text(json.dumps(measured, indent=1, ensure_ascii=False) + "\n")
    for record in measured["records"]:
        for row in record["rows"]:
            print(
                f"{record['network']}, {record['neuron']}, {row['name']}: "
                f"{1 / row['seconds per step']:.2f} steps/s, {row['÷ PyTorch eager']:.2f} × "
                f"PyTorch eager's, loss apart {row['apart']:.1e}"
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
