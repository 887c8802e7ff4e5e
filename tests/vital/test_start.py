"""A first phase in which the network sees what is optimised at half its size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional

from onnxplain.contract import steps
from onnxplain.contract.explain import IMAGE
from onnxplain.runtime.sessions import open_session
from onnxplain.vital.graphs.channels import write_channels
from onnxplain.vital.graphs.features import write_features
from onnxplain.vital.graphs.step import write_step
from onnxplain.vital.graphs.subject import Subject, pooled, read_subject, value_of

from .reference import relative

SIZE, EXACT = 16, 1e-5
RNG = np.random.default_rng(0)
PICTURES = RNG.standard_normal((2, 3, 2 * SIZE, 2 * SIZE)).astype(np.float32)
HALVED = functional.avg_pool2d(torch.from_numpy(PICTURES), 2).numpy()


@pytest.fixture(scope="module")
def half() -> Subject:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3),
    ).eval()  # fmt: skip
    return read_subject(network, example=torch.zeros(1, 3, SIZE, SIZE), layers=["0", "2"])


@pytest.fixture(scope="module")
def both(half: Subject) -> tuple[Subject, Subject]:
    """The subject, and the same for pictures of twice its size."""
    return half, pooled(half, replace(half.pre, height=2 * SIZE, width=2 * SIZE))


def test_what_it_sees_is_the_average_over_2_by_2(
    both: tuple[Subject, Subject], tmp_path: Path
) -> None:
    for write in (write_features, write_channels):
        found = []
        for subject, images in zip(both, (HALVED, PICTURES), strict=True):
            write(subject, tmp_path / "x.onnx")
            found.append(open_session(tmp_path / "x.onnx", "cpu").run({IMAGE: images}))
        for name, expected in found[0].items():
            assert relative(found[1][name], expected) <= EXACT


def test_a_source_may_have_a_value_of_any_name(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 20]>
        network (float[N, 3, 8, 8] image) => (float[N, 3] logits) {
            seen = Relu(image)
            means = GlobalAveragePool(seen)
            logits = Flatten(means)
        }"""
    )
    onnx.save(model, tmp_path / "network.onnx")
    half = read_subject(str(tmp_path / "network.onnx"), layers=["seen"])
    assert half.layers == {"seen": "seen"}
    whole = pooled(half, replace(half.pre, height=16, width=16))
    assert whole.seen is not None
    value = value_of(whole.model.graph, whole.seen)
    assert value.producer().op_type == "AveragePool"
    assert value_of(whole.model.graph, "seen").producer().op_type == "Relu"
    names = [y.name for node in whole.model.graph for y in node.outputs]
    assert len(set(names)) == len(names)
    write_step(whole, tmp_path / "step.onnx")


def test_a_step_shifts_what_is_seen_and_moves_the_whole_picture(
    both: tuple[Subject, Subject], tmp_path: Path
) -> None:
    """The gradient of each of four pixels is a quarter of that of their average."""
    found = []
    for subject, images in zip(both, (HALVED, PICTURES), strict=True):
        write_step(subject, tmp_path / "step.onnx", clip=False)
        templates = {
            steps.template(i): -np.sort(-np.random.default_rng(i).standard_normal((2, *shape)))
            for i, shape in enumerate(((4, SIZE**2), (5, (SIZE - 2) ** 2)))
        }
        given = {
            IMAGE: images,
            **dict.fromkeys((steps.FIRST_MOMENT, steps.SECOND_MOMENT), np.zeros_like(images)),
            steps.MAGNITUDE: np.zeros_like(images),
            steps.STEP: np.array(0),
            steps.LOSSES: np.zeros((1, 2), np.float32),
            steps.SHIFTS: np.array([[3, -5]]),
            steps.MIRRORED: np.ones(1, np.int64),
            steps.LEARNING_RATES: np.ones(1, np.float32),
            steps.PRIORS: np.array([0.1, 0.2, 0.3], np.float32),
            steps.WEIGHTS: np.ones(2, np.float32),
            **{name: array.astype(np.float32) for name, array in templates.items()},
        }
        found.append(open_session(tmp_path / "step.onnx", "cpu").run(given))
    seen, whole = found
    losses, magnitude, moment = map(
        steps.following, (steps.LOSSES, steps.MAGNITUDE, steps.FIRST_MOMENT)
    )
    assert relative(whole[losses], seen[losses]) <= EXACT
    for name in (magnitude, moment):
        spread = seen[name].repeat(2, axis=2).repeat(2, axis=3) / 4
        assert relative(whole[name], spread) <= EXACT
