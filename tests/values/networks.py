"""Small networks of inputs that are not one image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

WORDS = """
    <ir_version: 9, opset_import: ["": 20]>
    words (int64[N, T] words, float[N, T] mask) => (float[N, 2] probabilities)
    <float[4, 2] table = {1, 0, -1, 1, 2, 1, -2, 3}, int64[1] steps = {1}, int64[1] last = {2}> {
        embedded = Gather (table, words)
        beside = Unsqueeze (mask, last)
        masked = Mul (embedded, beside)
        positive = Relu (masked)
        sums = ReduceSum <keepdims = 0> (positive, steps)
        probabilities = Softmax (sums)
    }
"""

TWO = """
    <ir_version: 9, opset_import: ["": 20]>
    two (float[N, 2, 4, 4] left, float[N, 2, 4, 4] right) => (float[N, 2] y)
    <int64[2] places = {2, 3}> {
        product = Mul (left, right)
        positive = Relu (product)
        y = ReduceMean <keepdims = 0> (positive, places)
    }
"""


def written(text: str, path: Path) -> Path:
    """The file of a network in ONNX's own language."""
    onnx.save(onnx.parser.parse_model(text), path)
    return path


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().eval()


class Text(nn.Module):
    """Tokens [N, T] and a mask → logits [N, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 4)
        self.mixing = nn.Linear(4, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.of_embedded(self.embedding(ids), mask)

    def of_embedded(self, x: Tensor, mask: Tensor) -> Tensor:
        weights = mask[..., None].to(x.dtype)
        hidden = torch.relu(self.mixing(x)) * weights
        return self.head(hidden.sum(1) / weights.sum(1))


class Fused(nn.Module):
    """A picture and a row of a table → logits [N, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.see = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
        self.read = nn.Sequential(nn.Linear(5, 6), nn.ReLU())
        self.head = nn.Linear(4 * 9 + 6, 3)

    def forward(self, picture: Tensor, row: Tensor) -> Tensor:
        return self.head(torch.cat([self.see(picture), self.read(row)], 1))


def volumes() -> nn.Module:
    """[N, 1, 6, 8, 8] → logits [N, 3]."""
    return nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool3d(2),
        nn.Conv3d(4, 5, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(5, 3),
    )


def pooled() -> nn.Module:
    """Images [N, 3, H, W] of any size → logits [N, 3]."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


def series() -> nn.Module:
    """[N, 2, L] → logits [N, 3]."""
    return nn.Sequential(
        nn.Conv1d(2, 4, 5, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


def tables() -> nn.Module:
    """[N, 5] → logits [N, 3]."""
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
