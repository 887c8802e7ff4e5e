"""A small network of the energy of atoms, as SchNet is: positions [N, A, 3] → energy [N]."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

FEATURES, CENTERS, KINDS = 6, 5, 4


class Interaction(nn.Module):
    """Each atom is told of its neighbours, by filters of their distances."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Sequential(
            nn.Linear(CENTERS, FEATURES), nn.SiLU(), nn.Linear(FEATURES, FEATURES)
        )
        self.update = nn.Sequential(
            nn.Linear(FEATURES, FEATURES), nn.Tanh(), nn.Linear(FEATURES, FEATURES)
        )

    def forward(self, atoms: torch.Tensor, near: torch.Tensor) -> torch.Tensor:
        told: torch.Tensor = self.update((self.filters(near) * atoms[:, None]).sum(2))
        return atoms + told


class Energy(nn.Module):
    """float64; what PyTorch's exporter would round to float32 is a parameter."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kinds = nn.Embedding(KINDS, FEATURES)
        self.interactions = nn.ModuleList(Interaction() for _ in range(2))
        self.head = nn.Sequential(nn.Linear(FEATURES, FEATURES), nn.Tanh(), nn.Linear(FEATURES, 1))
        self.centers = nn.Parameter(torch.linspace(0, 4, CENTERS), requires_grad=False)
        self.double()

    def forward(self, positions: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor:
        apart = positions[:, :, None] - positions[:, None]
        distance = torch.sqrt((apart * apart).sum(-1) + 0.0625)
        near = torch.exp(-((distance[..., None] - self.centers) ** 2))
        atoms = self.kinds(kinds)
        for interaction in self.interactions:
            atoms = interaction(atoms, near)
        energy: torch.Tensor = self.head(atoms).sum((1, 2))
        return energy


def write(module: Energy, path: Path) -> Path:
    """As PyTorch exports it, with any number of molecules and of atoms."""
    positions, kinds = molecules(2, 3)
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("atoms")}
    torch.onnx.export(
        module,
        (positions, kinds),
        path,
        dynamo=True,
        dynamic_shapes=(sizes, sizes),
        opset_version=20,
        input_names=["positions", "kinds"],
        output_names=["energy"],
        optimize=True,
        verbose=False,
    )
    return path


def molecules(count: int, atoms: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    positions = torch.randn(count, atoms, 3, generator=random, dtype=torch.float64)
    return positions, torch.randint(0, KINDS, (count, atoms), generator=random)
