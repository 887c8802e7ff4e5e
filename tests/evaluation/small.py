"""What the tests of evaluations have in common."""

from __future__ import annotations

import torch
from torch import nn

SIDE = 16
MEAN, STD = (0.5, 0.4, 0.6), (0.2, 0.25, 0.3)
METHODS = ("gradient", "input-x-gradient", "excitation")


def small_network() -> nn.Module:
    """Pixels with a gradient of 0, as by a max-pool, would be sorted by rounding alone; and so
    would probabilities that hardly move."""
    torch.manual_seed(0)
    head = nn.Linear(12, 4)
    head.weight.data *= 40
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)),
        *(nn.Flatten(), head),
    ).eval()
