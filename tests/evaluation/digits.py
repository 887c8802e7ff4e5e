"""A network that reads handwritten digits, trained in seconds, and digits as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

SIZE = 24
TRAINED_ON = 1500


def pixels() -> np.ndarray:
    """All digits, grey, uint8 [N, 24, 24]."""
    found = load_digits().images.repeat(SIZE // 8, 1).repeat(SIZE // 8, 2)
    return (found * (255 / 16)).astype(np.uint8)


def trained() -> nn.Module:
    """Of images in [-1, 1]: right about nine of ten that it was not trained on."""
    torch.manual_seed(0)
    x = torch.from_numpy(pixels()[:, None] / np.float32(127.5) - 1)
    y = torch.tensor(load_digits().target)
    network = nn.Sequential(
        *(nn.Conv2d(1, 16, 5, stride=2, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.AvgPool2d(3)),
        *(nn.Flatten(), nn.Linear(128, 10)),
    )
    optimiser = torch.optim.Adam(network.parameters(), 5e-3)
    for _ in range(120):
        at = torch.randint(TRAINED_ON, (64,))
        loss = functional.cross_entropy(network(x[at]), y[at])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert (network(x[TRAINED_ON:]).argmax(1) == y[TRAINED_ON:]).float().mean() > 0.9
    return network.eval()


def write_files(folder: Path, count: int) -> list[Path]:
    """Digits that it was not trained on, as pictures."""
    folder.mkdir()
    paths = [folder / f"{i:02d}.png" for i in range(count)]
    for path, each in zip(paths, pixels()[TRAINED_ON:], strict=False):
        Image.fromarray(each).save(path)
    return paths
