"""What an export may leave as it is, explain instead of a logit, or multiply by the image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import onnxplain
from onnxplain.bench.fidelity.definitions import SOFTNESS as T
from onnxplain.bench.fidelity.definitions import SoftGate, TwoGates, softened
from onnxplain.errors import SourceError

IMAGES = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
TARGETS = np.array([1, 3])


@pytest.fixture(scope="module")
def network() -> TwoGates:
    torch.manual_seed(0)
    return TwoGates().eval()


def explained(network: nn.Module, path: Path, **options: Any) -> np.ndarray:
    onnxplain.export(network, path, example=torch.zeros(1, 3, 8, 8), **options)
    return onnxplain.load(path, threads=1)(IMAGES, TARGETS).pullback


def expected_of(network: TwoGates, last: Any, of: Any = None) -> np.ndarray:
    return softened(network, IMAGES, last, of or (lambda y: y[range(len(TARGETS)), TARGETS]))


def test_an_excepted_gate_stays_hard(network: TwoGates, tmp_path: Path) -> None:
    """A1: the authors soften modules alone, and so leave a functional ReLU hard."""
    found = explained(network, tmp_path / "soft.onnx", temperature=T)
    np.testing.assert_allclose(found, expected_of(network, SoftGate.apply), rtol=1e-4, atol=1e-7)
    from onnxplain.export.sources.source import read

    source = read(network, "DEFAULT", torch.zeros(1, 3, 8, 8), None, ())
    last = [node for node in source.model.graph if node.op_type == "Relu"][-1]
    given = {"temperature": T, "excepted": [str(last.name)]}
    found = explained(network, tmp_path / "hard.onnx", **given)
    expected = expected_of(network, torch.relu)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)
    assert np.linalg.norm(expected - expected_of(network, SoftGate.apply)) > 0.05 * np.linalg.norm(
        expected
    )
    noted = onnxplain.load(tmp_path / "hard.onnx").metadata
    assert noted.parameters["excepted"] == last.name
    with pytest.raises(SourceError, match="no layer 'nowhere'"):
        explained(network, tmp_path / "none.onnx", excepted=["nowhere"])


@pytest.mark.parametrize("multi", [False, True])
@pytest.mark.parametrize("objective", ["cross-entropy", "energy"])
def test_the_authors_other_objectives(
    network: TwoGates, tmp_path: Path, objective: str, multi: bool
) -> None:
    of = {
        "cross-entropy": lambda y: y.log_softmax(1)[range(len(TARGETS)), TARGETS],
        "energy": lambda y: 0.5 * y.square(),
    }[objective]
    path = tmp_path / "e.onnx"
    example = torch.zeros(1, 3, 8, 8)
    given = {"objective": objective, "multi_target": multi, "temperature": T}
    onnxplain.export(network, path, example=example, **given)
    targets = np.stack([TARGETS, TARGETS], 1) if multi else TARGETS
    found = onnxplain.load(path, threads=1)(IMAGES, targets).pullback
    expected = expected_of(network, SoftGate.apply, of)
    np.testing.assert_allclose(found[:, 1] if multi else found, expected, rtol=1e-4, atol=1e-7)


def test_the_target_of_an_unrolled_ascent_stays_and_its_objective_is_asked_again(
    network: TwoGates, tmp_path: Path
) -> None:
    import onnxruntime

    given = {"objective": "cross-entropy", "temperature": T}
    explained(network, tmp_path / "e.onnx", **given)
    example = torch.zeros(1, 3, 8, 8)
    onnxplain.export(network, tmp_path / "u.onnx", example=example, unroll=3, **given)
    session = onnxruntime.InferenceSession(tmp_path / "u.onnx")
    once = session.run(["accentuated"], {"image": IMAGES, "target": TARGETS})[0]
    explainer = onnxplain.load(tmp_path / "e.onnx", threads=1)
    end = onnxplain.accentuate(explainer, IMAGES, TARGETS, 3).end
    pre = explainer.metadata.preprocessing
    mean, std = (np.reshape(v, (3, 1, 1)) for v in (pre.mean, pre.std))
    np.testing.assert_allclose(2 * (once * std + mean) - 1, end, atol=1e-3)


def test_any_attribution_may_be_multiplied_by_the_image(network: TwoGates, tmp_path: Path) -> None:
    plain = explained(network, tmp_path / "e.onnx", temperature=T)
    found = explained(network, tmp_path / "x.onnx", temperature=T, times_image=True)
    np.testing.assert_allclose(found, plain * IMAGES, rtol=1e-5, atol=1e-8)
    with pytest.raises(SourceError, match="leave it out"):
        explained(network, tmp_path / "s.onnx", times_image=True, step=True)
    with pytest.raises(SourceError, match="no objective 'margin'"):
        explained(network, tmp_path / "s.onnx", objective="margin")
