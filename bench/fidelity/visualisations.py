"""VITAL: ours beside the definitions."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from onnxplain.bench.fidelity import definitions, residual
from onnxplain.bench.fidelity.definitions import Layers, from_0_to_1, maps
from onnxplain.bench.fidelity.figures import IMAGES, Array, Figures, relative, seeded
from onnxplain.contract import steps
from onnxplain.contract.channels import maximum, mean
from onnxplain.contract.explain import IMAGE
from onnxplain.reference.float64 import evaluate_in_float64
from onnxplain.runtime.sessions import open_session
from onnxplain.vital.graphs.adam import BETAS
from onnxplain.vital.graphs.channels import write_channels
from onnxplain.vital.graphs.features import write_features
from onnxplain.vital.graphs.step import write_step
from onnxplain.vital.graphs.subject import Subject, pooled, read_subject
from onnxplain.vital.recipes import recipe_of
from onnxplain.vital.result import opacity, stretched
from onnxplain.vital.settings import Flow


def features(
    folder: Path, kind: str, pool_rule: str = "window", network: nn.Sequential | None = None
) -> dict[str, Array]:
    """What our graph finds of the images, for the channel of `definitions`."""
    subject = read_subject(
        network or definitions.beginning_of_a_resnet(),
        example=torch.zeros(1, 3, 32, 32),
        layers=definitions.matched(kind),
        neuron=definitions.NEURON,
    )
    write_features(subject, folder / "features.onnx", Flow(kind, pool_rule))
    given = {IMAGE: IMAGES, steps.CHANNEL: np.full(len(IMAGES), definitions.CHANNEL)}
    found: dict[str, Array] = open_session(folder / "features.onnx", "cpu").run(given)
    return found


@cache
def small_resnet(apart: bool) -> Subject:
    return read_subject(
        seeded(residual.SmallResNet),
        example=torch.zeros(1, 3, 32, 32),
        layers=residual.LAYERS,
        neuron=residual.NEURON,
        fold_norms=not apart,
    )


def through_blocks(folder: Path, apart: bool, flow: Flow, skip: str, top: float) -> float:
    """How far the relevance that comes through a small ResNet is from the definition's.

    In float64, so that the greatest are the same ones, and each term of the rules tells.
    """
    path = folder / "features.onnx"
    write_features(small_resnet(apart), path, flow)
    given = {IMAGE: IMAGES, steps.CHANNEL: np.full(len(IMAGES), residual.CHANNEL)}
    found = evaluate_in_float64(path, given)
    network = seeded(residual.SmallResNet)
    maps, outputs = residual.Relevance(network, skip, top).maps(IMAGES)
    theirs = [(from_0_to_1(R, (2, 3)) * a).flatten(2) for R, a in zip(maps, outputs, strict=True)]
    return max(relative(found[steps.quantity(i)], each) for i, each in enumerate(theirs))


def weighted(R: torch.Tensor, activations: torch.Tensor, epsilon: float = 1e-6) -> torch.Tensor:
    """What is matched of a layer, by the definition, [N, C, P]."""
    return (from_0_to_1(R, (2, 3), epsilon) * activations).flatten(2)


def pool(folder: Path) -> Figures:
    layers = Layers(definitions.beginning_of_a_resnet(), IMAGES)
    theirs = weighted(maps(layers, "lrp", "vital")[0], layers.first)
    window, halved = (features(folder, "lrp", rule) for rule in ("window", "vital"))
    name = steps.quantity(0)
    return Figures(relative(window[name], theirs), relative(halved[name], theirs))


def guided(folder: Path) -> Figures:
    """Of the first layer, after its ReLU."""
    layers = Layers(definitions.beginning_of_a_resnet(), IMAGES)
    theirs, before = (
        weighted(maps(layers, "guided", last_relu=last)[0], layers.pooled_from)
        for last in (True, False)
    )
    found = features(folder, "guided")[steps.quantity(0)]
    return Figures(relative(found, theirs), before=relative(before, theirs))


def importance(folder: Path) -> Figures:
    layers = Layers(definitions.beginning_of_a_resnet(), IMAGES)
    greatest = maps(layers, "lrp")[0].amax((2, 3))
    theirs = from_0_to_1(greatest, (1,)).mean(0)
    found = features(folder, "lrp")[steps.importance(0)].mean(0)
    before = from_0_to_1(greatest.mean(0), (0,))
    return Figures(relative(found, theirs), before=relative(before, theirs))


def restricted(folder: Path) -> Figures:
    """Where the greatest relevance is some 1e-5, so that 1e-6 tells."""
    network: Any = definitions.beginning_of_a_resnet()
    with torch.no_grad():
        network[5].weight[definitions.CHANNEL] *= 1e-8
    layers = Layers(network, IMAGES)
    R = maps(layers, "restricted")[0]
    theirs, before = (weighted(R, layers.first, epsilon) for epsilon in (1e-6, 1e-38))
    found = features(folder, "restricted", network=network)[steps.quantity(0)]
    return Figures(relative(found, theirs), before=relative(before, theirs))


def patches(folder: Path) -> Figures:
    network = definitions.beginning_of_a_resnet()
    theirs = definitions.best_patches(network, IMAGES, 9)
    subject = read_subject(network, example=torch.zeros(1, 3, 32, 32), layers=[definitions.NEURON])
    found = []
    for side in (None, 9):
        write_channels(subject, folder / "channels.onnx", patch=side)
        found.append(open_session(folder / "channels.onnx", "cpu").run({IMAGE: IMAGES}))
    whole, sliding = found
    return Figures(relative(whole[maximum(0)], theirs), relative(sliding[mean(0)], theirs))


def negative_gamma(folder: Path) -> Figures:
    folded, apart = (
        through_blocks(folder, apart, Flow(), "flows_skip", 1.0) for apart in (False, True)
    )
    return Figures(folded, apart)


def shortcuts(folder: Path) -> Figures:
    """The three that are not the default, the worst of them; by default, from the nearest."""
    others = {"half": "flows_skip_simple", "branch-ratio": "latest", "branch-half": "simple"}
    by = partial(through_blocks, folder, True)
    default = min(by(Flow(), name, 1.0) for name in others.values())
    return Figures(default, max(by(Flow(skip=own), name, 1.0) for own, name in others.items()))


def filtered(folder: Path) -> Figures:
    by = partial(through_blocks, folder, True)
    whole, some = (by(Flow(share=share), "flows_skip", 0.2) for share in (1.0, 0.2))
    return Figures(whole, some)


def halved(folder: Path) -> Figures:
    """As many quantiles of each channel as a pooled image has pixels: of it, or of the whole."""
    seen = partial(read_subject, definitions.beginning_of_a_resnet(), layers=[definitions.FIRST])
    whole, small = (seen(example=torch.zeros(1, 3, side, side)) for side in (32, 16))
    images = functional.avg_pool2d(torch.from_numpy(IMAGES).double(), 2)
    theirs = definitions.beginning_of_a_resnet().double()[0](images).detach().flatten(2)
    levels, figures = np.linspace(0, 1, theirs.shape[2]), []
    for subject in (whole, pooled(small, whole.pre)):
        write_features(subject, folder / "features.onnx")
        q = open_session(folder / "features.onnx", "cpu").run({IMAGE: IMAGES})[steps.quantity(0)]
        figures.append(relative(*(np.quantile(each, levels, axis=2) for each in (q, theirs))))
    return Figures(*figures)


def means(folder: Path) -> Figures:
    """The gradient of four pictures of a class."""
    names = [definitions.FIRST, definitions.SECOND]
    network, random = definitions.beginning_of_a_resnet(), np.random.default_rng(1)
    subject = read_subject(network, example=torch.zeros(1, 3, 32, 32), layers=names)
    templates = [
        -np.sort(-random.standard_normal((1, c, p))).astype(np.float32)
        for c, p in ((6, 32 * 32), (8, 16 * 16))
    ]
    priors = (0.1, 0.01, 0.02)
    theirs = definitions.gradient_of_means(network, IMAGES, templates, priors)
    count = len(IMAGES)
    figures = []
    for together in (1, count):
        write_step(subject, folder / "step.onnx", together=together, clip=False)
        zeros = np.zeros_like(IMAGES)
        found = open_session(folder / "step.onnx", "cpu").run(
            {
                IMAGE: IMAGES, steps.FIRST_MOMENT: zeros, steps.SECOND_MOMENT: zeros,
                steps.MAGNITUDE: zeros, steps.STEP: np.array(0),
                steps.LOSSES: np.zeros((1, count), np.float32),
                steps.SHIFTS: np.zeros((1, 2), np.int64), steps.MIRRORED: np.zeros(1, np.int64),
                steps.LEARNING_RATES: np.ones(1, np.float32),
                steps.PRIORS: np.array(priors, np.float32), steps.WEIGHTS: np.ones(2, np.float32),
                **{
                    steps.template(i): each.repeat(count, axis=0)
                    for i, each in enumerate(templates)
                },
            }
        )  # fmt: skip
        g = found[steps.following(steps.FIRST_MOMENT)] / (1 - BETAS[0])
        figures.append(relative(g, theirs))
    return Figures(*figures)


def layers_matched(folder: Path) -> Figures:
    """The share of the three networks whose layers are others."""
    expected = {
        "vit_b_16": [f"encoder.layers.encoder_layer_{i}" for i in (0, 4, 8, 11)],
        "vit_l_16": [f"encoder.layers.encoder_layer_{i}" for i in (2, 9, 20, 23)],
        "convnext_base": [f"features.{i}" for i in ("2.1", "4.1", "6.1", "7.2")],
    }
    recipes = {name: recipe_of(name) for name in expected}
    same = [r is not None and [*r.layers[1:]] == expected[name] for name, r in recipes.items()]
    return Figures(1 - sum(same) / len(same))


def transparent(folder: Path) -> Figures:
    """Its opacity, and its colours from 0 to 255."""
    random = np.random.default_rng(0)
    magnitude = random.random((2, 64, 64)).astype(np.float32)
    top = np.percentile(magnitude, 98, axis=(1, 2), keepdims=True)
    theirs = magnitude.clip(None, top) / top
    pixels = random.integers(60, 160, (64, 64, 3)).astype(np.uint8)
    low, high = (np.percentile(pixels, percent) for percent in (1, 99))
    colours = np.rint(255 * (pixels.clip(low, high) - low) / (high - low))
    off = max(relative(opacity(magnitude), theirs), relative(stretched(pixels), colours))
    return Figures(off, before=relative(opacity(magnitude, "smooth"), theirs))
