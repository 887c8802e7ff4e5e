"""Pullbacks, their ascents, and the SegNet: ours beside the definitions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import onnxplain
from onnxplain.bench.fidelity import definitions
from onnxplain.bench.fidelity.figures import (
    IMAGES,
    SMALL,
    TARGET,
    Figures,
    explained,
    relative,
    seeded,
)
from onnxplain.reference.pytorch import explain
from onnxplain.signal.autoencoder import Autoencoder, Design
from onnxplain.signal.weights import load_autoencoder


def functional_relu(folder: Path) -> Figures:
    network = seeded(definitions.TwoGates)
    theirs = definitions.softened(network, SMALL, torch.relu, lambda y: y[:, TARGET])
    ours = explained(network, folder, temperature=definitions.SOFTNESS)
    option = explained(network, folder, temperature=definitions.SOFTNESS, excepted=["node_relu_1"])
    return Figures(relative(ours, theirs), relative(option, theirs))


def attention(folder: Path) -> Figures:
    network = seeded(definitions.Attention)
    x = torch.from_numpy(SMALL).double().requires_grad_()
    (theirs,) = torch.autograd.grad(network.double()(x)[:, TARGET].sum(), x)
    return Figures(relative(explained(network.float(), folder, method="semantic"), theirs))


def temperatures(folder: Path) -> Figures:
    """Of ReLU and the pool, and of attention: by default the nearer, with the option the worse."""
    network, heads = definitions.beginning_of_a_resnet(), seeded(definitions.Attention)
    by_rule: dict[str, Any]
    by_rule, of_heads = {"relu": 0.5, "max_pool": 0.5}, {"attention": 0.5}
    target = torch.full((len(IMAGES),), TARGET)
    double = torch.from_numpy(IMAGES).double()
    _, theirs = explain(network.double(), double, target, "semantic", **by_rule)
    x = torch.from_numpy(SMALL).double().requires_grad_()
    softer = heads.double()(x, of_heads["attention"])[:, TARGET].sum()
    (theirs_of_heads,) = torch.autograd.grad(softer, x)
    cases = (
        (network.float(), IMAGES, by_rule, theirs),
        (heads.float(), SMALL, of_heads, theirs_of_heads),
    )
    apart, same = [], []
    for module, images, given, expected in cases:
        ours = partial(explained, module, folder, images, method="semantic")
        baked, default = ours(parameters=given), ours(live=list(given))
        live = onnxplain.load(folder / "explain.onnx", "cpu")(images, TARGET, given).pullback
        apart.append(relative(default, expected))
        same += [relative(each, expected) for each in (baked, live)]
    return Figures(min(apart), max(same))


def ascent(folder: Path) -> Figures:
    """On an image so large that five steps of 40 reach the bound of v1, 100."""
    network, image = definitions.beginning_of_a_resnet(), LARGE
    explained(network, folder, image, method="semantic")
    explainer = onnxplain.load(folder / "explain.onnx", "cpu")
    mean, std = (
        torch.tensor(v, dtype=torch.float64).view(-1, 1, 1)
        for v in (explainer.metadata.preprocessing.mean, explainer.metadata.preprocessing.std)
    )
    target = torch.full((len(image),), TARGET)

    def gradient(pixels: torch.Tensor) -> torch.Tensor:
        x = ((pixels + 1) / 2 - mean) / std
        return explain(network.double(), x, target, "semantic")[1] / (2 * std)

    inside = 0.3 * np.tanh(image)
    start = 2 * (torch.from_numpy(inside).double() * std + mean) - 1
    v6, unbounded, bounded = (
        definitions.ascended(gradient, start, *options) - start
        for options in ((10, 20.0, None), (5, 40.0, None), (5, 40.0, 100.0))
    )
    ours = onnxplain.accentuate(explainer, inside, TARGET).difference
    v1 = onnxplain.accentuate(explainer, inside, TARGET, 5, 40.0, 100.0).difference
    return Figures(relative(ours, v6), relative(v1, bounded), relative(v1, unbounded))


LARGE = np.random.default_rng(0).standard_normal((1, 3, 72, 72)).astype(np.float32)
PIXELS = torch.from_numpy(np.random.default_rng(0).random((1, 3, 32, 32), np.float32))


def published(path: Path, coded: Callable[[str], Any]) -> Autoencoder:
    """A SegNet of random weights, after its file is written as theirs are."""
    torch.manual_seed(0)
    network = Autoencoder(Design("segnet", 32)).eval()
    state = {".".join(name.split(".")[-2:]): t for name, t in network.state_dict().items()}
    torch.save({coded("model_state"): {coded(name): t for name, t in state.items()}}, path)
    return network


def names_of_bytes(folder: Path) -> Figures:
    network = published(folder / "a.pth", str.encode)
    with torch.no_grad():
        return Figures(relative(load_autoencoder(folder / "a.pth")(PIXELS), network(PIXELS)))


def channel_order(folder: Path) -> Figures:
    network, pixels = published(folder / "a.pth", str), PIXELS
    with torch.no_grad():
        theirs = network(pixels)
        mean, std = network.mean, network.std
        ours, bgr = (load_autoencoder(folder / "a.pth", order) for order in ("rgb", "bgr"))
        flipped = (network((pixels.flip(1) - mean.flip(1)) / std.flip(1) * std + mean) - mean) / std
        expected = flipped.flip(1) * std + mean
        return Figures(relative(ours(pixels), theirs), relative(bgr(pixels), expected))
