"""The networks that are differentiated, with an open batch and with a fixed one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import torch
from torch import nn

from onnxplain.bench import networks
from onnxplain.bench.rivals.energies import Energy, molecules

Example: TypeAlias = tuple[nn.Module, tuple[torch.Tensor, ...]]
"""A module, and inputs for a batch of two. It is differentiated with respect to the first."""


class _Padded(nn.Module):
    """Two convolutions; the first sees one row and one column more below and at the right."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, stride=2), nn.Conv2d(16, 32, 3)
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(nn.functional.pad(x, (0, 1, 0, 1))))
        x = torch.relu(self.second(x))
        logits: torch.Tensor = self.head(x.mean((2, 3)))
        return logits


def _mlp() -> Example:
    layers = [nn.Linear(64, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, 1)]
    return nn.Sequential(*layers), (torch.randn(2, 64),)


def _energy() -> Example:
    positions, kinds = molecules(2, 12)
    return Energy().float(), (positions.float(), kinds)


def _padded() -> Example:
    return _Padded(), (torch.randn(2, 3, 64, 64),)


def _images(name: str) -> Callable[[], Example]:
    def make() -> Example:
        module = networks.network(name, networks.photographs())
        return module, (torch.randn(2, 3, 224, 224),)

    return make


NETWORKS: dict[str, Callable[[], Example]] = {
    "MLP energy": _mlp,
    "SchNet-like energy": _energy,
    "small CNN, uneven padding": _padded,
    "resnet18": _images("resnet18"),
    "mobilenet_v2": _images("mobilenet_v2"),
    "vit_tiny": _images("timm/vit_tiny_patch16_224"),
}


def example(name: str) -> Example:
    """A network in evaluation mode, always the same."""
    torch.manual_seed(0)
    module, inputs = NETWORKS[name]()
    return module.eval(), inputs


def write(
    module: nn.Module, inputs: tuple[torch.Tensor, ...], path: Path, open_batch: bool
) -> None:
    """The network as PyTorch exports it: inputs x, x1 …, output y."""
    batch = torch.export.Dim("batch")
    names = ["x", *(f"x{i}" for i in range(1, len(inputs)))]
    torch.onnx.export(
        module,
        inputs if open_batch else tuple(x[:1] for x in inputs),
        path,
        dynamo=True,
        dynamic_shapes=tuple({0: batch} for _ in inputs) if open_batch else None,
        opset_version=20,
        input_names=names,
        output_names=["y"],
        optimize=True,
        external_data=False,
        verbose=False,
    )
