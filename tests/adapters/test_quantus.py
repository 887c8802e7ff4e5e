"""Quantus's metrics give the same of a file as of the network that it was made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import onnxplain
from onnxplain.adapters.network import Network
from onnxplain.adapters.quantus import explain_func

from .small import X, small_network

quantus = pytest.importorskip("quantus")


def saliency(model: nn.Module, inputs: Any, targets: Any, **_: Any) -> np.ndarray:
    x = torch.as_tensor(np.asarray(inputs), dtype=torch.float32).requires_grad_()
    logits = model(x).gather(1, torch.as_tensor(np.asarray(targets))[:, None])
    (gradient,) = torch.autograd.grad(logits.sum(), x)
    return gradient.numpy()


@pytest.mark.parametrize(
    "metric",
    [
        lambda: quantus.FaithfulnessCorrelation(nr_runs=6, subset_size=40, disable_warnings=True),
        lambda: quantus.MaxSensitivity(nr_samples=3, disable_warnings=True),
    ],
    ids=["faithfulness", "sensitivity"],
)
def test_a_metric_by_the_packages_own_example(metric: Any, tmp_path: Path) -> None:
    network = small_network()
    onnxplain.export(network, tmp_path / "x.onnx", example=X, method="gradient")
    explainer = onnxplain.load(tmp_path / "x.onnx", "cpu")
    found = []
    for model, explain in (
        (Network(explainer).eval(), explain_func(explainer)),
        (network, saliency),
    ):
        np.random.seed(0)
        given = {"x_batch": X.numpy(), "y_batch": np.array([2, 0]), "explain_func": explain}
        found.append(metric()(model=model, a_batch=None, device="cpu", **given))
    np.testing.assert_allclose(*found, atol=1e-3)
    assert np.abs(found[0]).max() > 0.01
