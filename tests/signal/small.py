"""Small data and networks for the tests of `onnxplain.signal`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from onnxplain.signal.autoencoder import Autoencoder, Design


def class_folders(folder: Path, classes: int = 2, pictures: int = 4, side: int = 40) -> Path:
    """Noise in folders, each class in a colour of its own."""
    random = np.random.default_rng(0)
    for label in range(classes):
        (folder / f"class{label}").mkdir(parents=True)
        for k in range(pictures):
            pixels = random.integers(0, 120, (side, side, 3), dtype=np.uint8)
            pixels[..., label % 3] += 130
            Image.fromarray(pixels).save(folder / f"class{label}" / f"{k}.png")
    return folder


class Linear(nn.Module):
    """A classifier of one layer."""

    def __init__(self, channels: int, size: int, classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(channels * size * size, classes)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.layer(pixels.flatten(1))


class Singular(nn.Module):
    """A classifier by an operator that ONNX does not have."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.linalg.svdvals(pixels.mean(1))[:, :3]


def autoencoder(name: str = "segnet-tiny", size: int = 16, channels: int = 3) -> Autoencoder:
    """One whose BatchNorm statistics are not those of a fresh network."""
    torch.manual_seed(0)
    made = Autoencoder(Design.of(name, size, channels))
    with torch.no_grad():
        for module in made.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)  # type: ignore[operator, union-attr]
                module.running_var.uniform_(0.05, 0.3)  # type: ignore[operator, union-attr]
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.1)
    return made.eval()
