"""A weight's positive part, forward and transposed: OpenVINO must not take one for the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import onnxplain

pytest.importorskip("openvino")


@pytest.mark.parametrize("stride", [1, 2])
def test_relevances_through_square_weights_are_onnx_runtime_s(stride: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU()]
    for _ in range(3):
        layers += [nn.Conv2d(32, 32, 3, stride, 1), nn.ReLU()]
    module = nn.Sequential(
        *layers, nn.Flatten(), nn.LazyLinear(64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU()
    )
    path = tmp_path / "square.explain.onnx"
    example = torch.zeros(1, 3, 32, 32)
    module(example)
    onnxplain.export(module.eval(), path, method="lrp-zplus", example=example)
    picture = np.random.default_rng(0).standard_normal(example.shape).astype(np.float32)
    right, found = (
        onnxplain.load(path, provider=provider)(picture, [5]).pullback
        for provider in ("cpu", "openvino")
    )
    assert np.linalg.norm(right) > 0
    np.testing.assert_allclose(found, right, rtol=1e-3, atol=1e-5 * np.abs(right).max())
