"""Networks of no pictures as their packages have them: gradients against PyTorch's in float64.

Small sizes, untrained; `onnxplain.reference` is beside the methods that replace derivatives.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

import onnxplain
from onnxplain.reference.float64 import evaluate_in_float64
from onnxplain.reference.pytorch import explain

from .networks import seeded
from .test_gradients import Array, close, gradients, noise

pytestmark = pytest.mark.sweep


def lively(network: nn.Module) -> nn.Module:
    """With statistics of their own, as those of an untrained batch norm let signals fade."""
    for part in network.modules():
        if isinstance(part, nn.BatchNorm3d):
            generator = torch.Generator().manual_seed(part.num_features)
            part.running_mean.normal_(0, 0.1, generator=generator)  # type: ignore[union-attr]
            part.running_var.uniform_(0.5, 1.5, generator=generator)  # type: ignore[union-attr]
    return network


def right(network: nn.Module, x: Tensor, method: str) -> Array:
    """PyTorch's, or the reference's, for the classes 0 and 2."""
    if method == "gradient":
        return gradients(network.double(), [x], [0, 2])[0]
    return explain(network.double(), x.double(), torch.tensor([0, 2]), method)[1].numpy()


@pytest.mark.parametrize("method", ["gradient", "excitation"])
def test_a_network_of_videos(method: str, tmp_path: Path) -> None:
    make = torchvision.models.video.r3d_18
    network, x = lively(seeded(lambda: make(weights=None, num_classes=5))), noise(2, 3, 4, 16, 16)
    path = tmp_path / "e.onnx"
    onnxplain.export(network, path, example=x[:1], method=method)
    explainer = onnxplain.load(path, "cpu")
    (name,) = explainer.metadata.values.inputs
    assert explainer.metadata.values.explained[name].kind == "volume"
    explanation = explainer({name: x.numpy()}, [0, 2])
    expected = right(network, x, method)
    error = np.linalg.norm(explanation.pullback - expected) / np.linalg.norm(expected)
    assert error <= 3e-2
    # Where float32 rounds a ReLU open or shut, the same file in float64 does not.
    feeds = {name: x.numpy(), "target": np.array([0, 2])}
    exact = evaluate_in_float64(path, feeds, ["pullback"])["pullback"]
    error = np.linalg.norm(exact - expected) / np.linalg.norm(expected)
    assert error <= (1e-4 if method == "gradient" else 1e-3), error


class OfEmbeddings(nn.Module):
    """A classifier of text as a function of its words' embeddings."""

    def __init__(self, network: Any, mask: Tensor) -> None:
        super().__init__()
        self.network, self.mask = network, mask

    def forward(self, x: Tensor) -> Tensor:
        return self.network(inputs_embeds=x, attention_mask=self.mask).logits


def distilbert() -> nn.Module:
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    config = DistilBertConfig(
        vocab_size=50, dim=16, n_heads=2, n_layers=2, hidden_dim=32, num_labels=3,
        max_position_embeddings=32,
    )  # fmt: skip
    return seeded(lambda: DistilBertForSequenceClassification(config))


def bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=50, hidden_size=16, num_attention_heads=2, num_hidden_layers=2,
        intermediate_size=32, num_labels=3, max_position_embeddings=32,
    )  # fmt: skip
    return seeded(lambda: BertForSequenceClassification(config))


@pytest.mark.parametrize("method", ["gradient", "semantic"])
@pytest.mark.parametrize("make", [distilbert, bert])
def test_a_classifier_of_text(make: Any, method: str, tmp_path: Path) -> None:
    network: Any = make()
    ids = torch.tensor([[3, 14, 15, 9, 26, 5], [2, 7, 18, 28, 0, 0]])
    given = {"input_ids": ids, "attention_mask": (ids > 0).long()}
    shorter = {name: x[:1, :5] for name, x in given.items()}
    onnxplain.export(network, tmp_path / "e.onnx", example=shorter, method=method)
    explainer = onnxplain.load(tmp_path / "e.onnx", "cpu")
    (explained,) = explainer.metadata.values.explained.values()
    assert (explained.kind, explained.input) == ("tokens", "input_ids")
    explanation = explainer({name: x.numpy() for name, x in given.items()}, [0, 2])
    words = network.get_input_embeddings()(ids).detach()
    of_embeddings = OfEmbeddings(network, given["attention_mask"]).eval()
    close(explanation.pullback, right(of_embeddings, words, method))
