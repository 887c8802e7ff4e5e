"""Parity's figures, the comparison with the reference, and finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import onnxplain
from onnxplain.contract.explain import Metadata, Preprocessing
from onnxplain.errors import InputError
from onnxplain.reference.answers import Array, compare
from onnxplain.reference.derivatives import finite_differences
from onnxplain.reference.parity import Parity
from onnxplain.reference.pytorch import explain

IMAGES = np.random.default_rng(0).standard_normal((2, 3, 6, 6)).astype(np.float32)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32, 5)
    ).eval()


@dataclass
class FakeExplainer:
    """An explain graph played by the reference in float32; `twist` makes its pullback wrong."""

    metadata: Metadata
    twist: Callable[[Array], Array] = lambda pullback: pullback

    @property
    def backend(self) -> SimpleNamespace:
        return SimpleNamespace(signature=SimpleNamespace(metadata=self.metadata))

    def __call__(self, image: Array, target: Array) -> SimpleNamespace:
        assert (image.dtype, target.dtype) == (np.float32, np.int64)
        nhwc = self.metadata.preprocessing.layout == "NHWC"
        assert image.shape[3 if nhwc else 1] == 3
        logits, pullback = explain(
            network(),
            torch.from_numpy(np.moveaxis(image, -1, -3) if nhwc else image),
            torch.from_numpy(target),
            self.metadata.method,
            self.metadata.parameters.get("temperature"),
        )
        return SimpleNamespace(logits=logits.numpy(), pullback=self.twist(pullback.numpy()))


def explainer(
    method: str,
    twist: Callable[[Array], Array] = lambda pullback: pullback,
    layout: str = "NCHW",
    parameters: Mapping[str, float] | None = None,
) -> FakeExplainer:
    preprocessing = Preprocessing(6, 6, 6, layout=layout)
    return FakeExplainer(Metadata("0", method, "fake", preprocessing, parameters or {}), twist)


class TestParity:
    def test_of_equal_arrays(self) -> None:
        parity = Parity.of([[3.0, 4.0]], [[3.0, 4.0]])
        assert (parity.max_abs, parity.relative_l2) == (0, 0)
        assert parity.cosine == pytest.approx(1)

    def test_by_hand(self) -> None:
        parity = Parity.of([3.0, 0.0], [3.0, 4.0])
        assert parity == Parity(max_abs=4.0, relative_l2=0.8, cosine=0.6)

    def test_of_zeros(self) -> None:
        assert Parity.of([0.0, 0.0], [0.0, 0.0]) == Parity(0, 0, 1)
        assert Parity.of([0.0, 2.0], [0.0, 0.0]) == Parity(2, math.inf, 0)
        assert Parity.of([0.0, 0.0], [0.0, 2.0]) == Parity(2, 1, 0)

    def test_nan_passes_no_bound(self) -> None:
        for parity in (Parity.of([math.nan, 1], [1, 1]), Parity.of([math.nan, 1], [0, 0])):
            assert not parity.max_abs < 1e9
            assert not parity.relative_l2 < 1e9
            assert not parity.cosine > -2

    def test_shapes_must_agree(self) -> None:
        with pytest.raises(ValueError, match="shapes differ"):
            Parity.of([1.0], [[1.0]])


class TestCompare:
    @pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
    @pytest.mark.parametrize("targets", [[-1, 2], [[-1, -2, 0], [4, 3, -5]]])
    def test_float32_agrees_with_the_float64_reference(self, layout: str, targets: Any) -> None:
        graph = explainer("excitation", layout=layout, parameters={"temperature": 0.7})
        module = network()
        parity = compare(graph, module, IMAGES, targets)
        assert list(parity) == ["logits", "pullback"]
        assert all(0 < p.relative_l2 < 1e-5 for p in parity.values())
        assert next(module.parameters()).dtype == torch.float32  # a copy was compared

    def test_a_wrong_pullback_shows(self) -> None:
        parity = compare(explainer("gradient", lambda p: 1.1 * p), network(), IMAGES, [0, 1])
        assert parity["logits"].relative_l2 < 1e-5
        assert parity["pullback"].relative_l2 == pytest.approx(0.1, rel=1e-3)

    def test_the_temperature_is_the_graphs_own(self) -> None:
        graph = explainer("excitation", parameters={"temperature": 0.7})
        graph.twist = lambda p: explain(
            network(), torch.from_numpy(IMAGES), torch.tensor([0, 1]), "excitation", 0.3
        )[1].numpy()
        assert compare(graph, network(), IMAGES, [0, 1])["pullback"].relative_l2 > 0.01


class TestFiniteDifferences:
    @pytest.mark.parametrize("target", [2, -1, [-2], [[-1]]])
    @pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
    def test_the_right_gradient_passes(self, target: Any, layout: str) -> None:
        found = finite_differences(explainer("gradient", layout=layout), IMAGES[:1], target)
        assert list(found) == ["along the pullback", "along noise"]
        for derivatives in found.values():
            assert derivatives.predicted.shape == derivatives.measured.shape == (8,)
            assert derivatives.relative_error < 0.01

    @pytest.mark.parametrize(
        "twist",
        [
            lambda p: 1.1 * p,
            lambda p: -p,
            np.zeros_like,
            lambda p: p[..., ::-1],
            lambda p: p * (np.arange(p.shape[-1]) < 4),  # silent where it should not be
        ],
    )
    def test_a_wrong_one_fails(self, twist: Callable[[Array], Array]) -> None:
        found = finite_differences(explainer("gradient", twist), IMAGES[:1], 2)
        assert any(derivatives.relative_error > 0.05 for derivatives in found.values())

    def test_only_a_gradient_can_be_checked(self) -> None:
        with pytest.raises(InputError, match="guided"):
            finite_differences(explainer("guided"), IMAGES[:1], 0)


@pytest.mark.parametrize("seed", [0, 5])
def test_rounding_is_not_held_against_a_right_gradient(seed: int, tmp_path: Path) -> None:
    """Along noise, the logits of a mean over many pixels change by few units in the last place."""
    torch.manual_seed(seed)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, stride=2),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 2),
    ).eval()
    onnxplain.export(network, tmp_path / "e.onnx", size=224, method="gradient")
    image = np.random.default_rng(seed).standard_normal((1, 3, 224, 224)).astype(np.float32)
    found = finite_differences(onnxplain.load(tmp_path / "e.onnx", "cpu", threads=1), image, -1)
    assert found["along the pullback"].relative_error <= 1e-2
    assert found["along noise"].relative_error <= 1e-1
