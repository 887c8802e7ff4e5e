"""VITAL's definitions, each written once more in PyTorch, float64, on a network of a few layers."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from onnxplain.bench.fidelity import residual
from onnxplain.bench.fidelity.definitions import (
    CHANNEL,
    NEURON,
    SIZE,
    Layers,
    beginning_of_a_resnet,
    from_0_to_1,
    maps,
    matched,
)
from onnxplain.contract import steps
from onnxplain.contract.explain import IMAGE
from onnxplain.contract.steps import StepMetadata
from onnxplain.reference.pytorch.vital import priors
from onnxplain.runtime.sessions import open_session
from onnxplain.vital.engine import Engine
from onnxplain.vital.graphs.features import write_features
from onnxplain.vital.graphs.step import write_step
from onnxplain.vital.graphs.subject import Subject, read_subject
from onnxplain.vital.phase import Phase
from onnxplain.vital.recipes import recipe_of
from onnxplain.vital.references import some_of
from onnxplain.vital.result import opacity, stretched
from onnxplain.vital.settings import Flow, Settings

from .reference import relative

EXACT = 1e-4


@pytest.fixture(scope="module")
def network() -> nn.Sequential:
    """The beginning of a ResNet: convolution, ReLU, max-pool of 3 × 3 with stride 2."""
    return beginning_of_a_resnet()


@pytest.fixture(scope="module")
def subject(network: nn.Sequential) -> Subject:
    return subject_of(network, "lrp")


def subject_of(network: nn.Sequential, kind: str) -> Subject:
    example = torch.zeros(1, 3, SIZE, SIZE)
    return read_subject(network, example=example, layers=matched(kind), neuron=NEURON)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((4, 3, SIZE, SIZE)).astype(np.float32)


@pytest.fixture
def layers(network: nn.Sequential, images: np.ndarray) -> Layers:
    return Layers(network, images)


@pytest.mark.parametrize(
    ("kind", "pool_rule"),
    [
        ("lrp", "window"),
        ("lrp", "vital"),
        ("restricted", "window"),
        ("restricted", "vital"),
        ("guided", "window"),
    ],
)
def test_relevance_and_importance_are_the_authors(
    network: nn.Sequential,
    layers: Layers,
    images: np.ndarray,
    tmp_path: Path,
    kind: str,
    pool_rule: str,
) -> None:
    """C1 to C4: the last ReLU of guided maps, the pool, importance by image, and 1e-6."""
    path, channel = tmp_path / "features.onnx", np.full(len(images), CHANNEL)
    write_features(subject_of(network, kind), path, Flow(kind, pool_rule))
    outputs = open_session(path, "cpu").run({IMAGE: images, steps.CHANNEL: channel})
    activations = layers.outputs(kind)
    for i, R in enumerate(maps(layers, kind, pool_rule)):
        q = (from_0_to_1(R, (2, 3)) * activations[i]).flatten(2)
        assert relative(outputs[steps.quantity(i)], q) <= EXACT
        importance = from_0_to_1(R.amax((2, 3)), (1,))
        assert relative(outputs[steps.importance(i)], importance) <= EXACT


def test_guided_maps_differ_without_their_last_relu(layers: Layers) -> None:
    """C2: in both layers."""
    for own, before in zip(
        maps(layers, "guided"), maps(layers, "guided", last_relu=False), strict=True
    ):
        assert relative(from_0_to_1(before, (2, 3)), from_0_to_1(own, (2, 3))) > 0.01


def test_the_rules_of_a_pool_differ(layers: Layers) -> None:
    """C1: an average over 2 × 2 is no average over 3 × 3."""
    window, halved = (maps(layers, "lrp", rule)[0] for rule in ("window", "vital"))
    assert relative(window, halved) > 0.3


def test_where_a_block_and_its_shortcut_are_0_nothing_is_shared(tmp_path: Path) -> None:
    """C9: what their quotient is there is no number."""
    network = residual.SmallResNet().eval()
    for conv in (network.blocks[1].conv2, network.blocks[0].conv2, network.blocks[0].project):
        torch.nn.init.zeros_(conv.weight)
    for norm in (network.blocks[1].bn2, network.blocks[0].bn2, network.blocks[0].bn3):
        torch.nn.init.zeros_(norm.weight)
    subject = read_subject(
        network, example=torch.zeros(1, 3, 8, 8), layers=["stem"], neuron=residual.NEURON
    )
    write_features(subject, tmp_path / "x", Flow("lrp"))
    given = {IMAGE: np.ones((1, 3, 8, 8), np.float32), steps.CHANNEL: np.array([0])}
    found = open_session(tmp_path / "x", "cpu").run(given)
    np.testing.assert_array_equal(found[steps.quantity(0)], 0)


def test_their_setting_of_20000_steps_is_torchs_adam_unclipped(
    network: nn.Sequential, subject: Subject, images: np.ndarray, tmp_path: Path
) -> None:
    """`--betas 0.9,0.999 --no-clip`."""
    write_step(subject, tmp_path / "x", objective="activation", betas=(0.9, 0.999), clip=False)
    count, zeros = 3, np.zeros_like(images)
    rates = np.array([0.5, 2.0, 1.0], np.float32)
    start = {
        IMAGE: images, steps.FIRST_MOMENT: zeros, steps.SECOND_MOMENT: zeros,
        steps.MAGNITUDE: zeros, steps.STEP: np.array(0),
        steps.LOSSES: np.zeros((count, len(images)), np.float32),
        steps.SHIFTS: np.zeros((count, 2), np.int64), steps.MIRRORED: np.zeros(count, np.int64),
        steps.LEARNING_RATES: rates, steps.PRIORS: np.array([0.0, 0.01, 0.01], np.float32),
        steps.CHANNEL: np.full(len(images), CHANNEL),
    }  # fmt: skip
    graph = open_session(tmp_path / "x", "cpu")
    carried = StepMetadata.from_props(graph.metadata).carried
    found = graph.iterate(start, carried, count)[steps.following(IMAGE)]
    x = torch.from_numpy(images).double().requires_grad_()
    until = copy.deepcopy(network).double()[: int(NEURON) + 1]
    adam = torch.optim.Adam([x], lr=1.0, betas=(0.9, 0.999), eps=1e-8)
    for rate in rates.tolist():
        adam.param_groups[0]["lr"] = rate
        adam.zero_grad()
        loss = priors(x, (0.0, 0.01, 0.01)) - until(x)[:, CHANNEL].mean((1, 2))
        loss.sum().backward()
        adam.step()
    assert relative(found, x.detach()) <= EXACT
    assert found.min() < -0.485 / 0.229  # darker than black


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vit_b_16", ["conv_proj", *(f"encoder.layers.encoder_layer_{i}" for i in (0, 4, 8, 11))]),
        ("vit_l_16", ["conv_proj", *(f"encoder.layers.encoder_layer_{i}" for i in (2, 9, 20, 23))]),
        (
            "convnext_base",
            ["features.0", "features.2.1", "features.4.1", "features.6.1", "features.7.2"],
        ),
    ],
)
def test_the_layers_matched_are_the_authors(name: str, expected: list[str]) -> None:
    """C7."""
    recipe = recipe_of(name)
    assert recipe is not None
    assert list(recipe.layers) == expected


def test_the_transparent_picture_is_the_authors() -> None:
    """C8: opaque from the 98th percentile on, values from the 1st to the 99th."""
    random = np.random.default_rng(0)
    magnitude = random.random((2, 40, 40)).astype(np.float32)
    for own, alpha in zip(magnitude, opacity(magnitude), strict=True):
        top = np.percentile(own, 98)
        np.testing.assert_allclose(alpha, own.clip(None, top) / top, rtol=1e-5)
    pixels = (60 + 100 * random.random((40, 40, 3))).astype(np.uint8)
    low, high = np.percentile(pixels, 1), np.percentile(pixels, 99)
    expected = 255 * (pixels.clip(low, high) - low) / (high - low)
    np.testing.assert_allclose(stretched(pixels), expected, atol=0.51)
    assert (stretched(pixels).min(), stretched(pixels).max()) == (0, 255)


def test_references_are_resized_as_256_is_to_224(subject: Subject, tmp_path: Path) -> None:
    """C6: whatever the network's own preset says, bilinearly."""
    preset = replace(subject.pre, height=224, width=224, resize=232, interpolation="bicubic")
    for wanted, expected in ((None, 256), (240, 240)):
        engine, settings = Engine("cpu", None, "float32"), Settings(resize=wanted)
        own, silent = replace(subject, pre=preset), lambda now: None
        phase = Phase(own, settings, (0,), engine, tmp_path, None, None, tmp_path, silent)
        found = phase.subject.pre
        assert (found.resize, found.interpolation) == (expected, "bilinear")


def test_references_are_random_and_in_colour(tmp_path: Path) -> None:
    """C6: other files for another seed, none grey, in the folder's order."""
    files = []
    for i in range(20):
        mode = "L" if i % 4 == 0 else "RGB"
        files.append(tmp_path / f"{i:02}.png")
        Image.new(mode, (4, 4)).save(files[-1])
    some = some_of(files, 5, 0)
    assert len(some) == 5
    assert some == sorted(some) == some_of(files, 5, 0)
    assert some != some_of(files, 5, 1)
    assert not {files[i] for i in range(0, 20, 4)} & {*some_of(files, 20, 0)}
    assert some_of(files[:1], 5, 0) == files[:1]  # nothing but grey ones
