"""A classifier and images for the adapters' tests."""

from __future__ import annotations

import torch
from torch import nn

X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)),
        *(nn.Flatten(), nn.Linear(12, 4)),
    ).eval()
