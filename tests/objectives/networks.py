"""Small networks of every kind, and what PyTorch says of their objectives."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

import onnxplain
from onnxplain.runtime import Explainer

Array = npt.NDArray[Any]
SIZE = 16


def images(count: int = 2, size: int = SIZE) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().eval()


def trunk(channels: int = 6) -> nn.Sequential:
    """[N, 3, H, W] → [N, channels, H/2, W/2]."""
    return nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(5, channels, 3, padding=1),
    )


def vector(size: int) -> nn.Module:
    """[N, 3, H, W] → [N, size]."""
    return seeded(
        lambda: nn.Sequential(
            trunk(), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, size)
        )
    )


_KEPT = tempfile.TemporaryDirectory(prefix="onnxplain-objectives-")
"""Outlives every test: what one exported, others read."""

_EXPORTED: dict[str, tuple[Explainer, dict[str, Any]]] = {}


def exported(network: nn.Module, side: int = SIZE, /, **options: Any) -> Explainer:
    """What explains it; a network of the same content is exported once with the same options."""
    content = [float(tensor.double().sum()) for tensor in network.state_dict().values()]
    own = [value for value in vars(network).values() if isinstance(value, str | bool)]
    key = repr((type(network), network, own, content, side, sorted(options.items(), key=str)))
    if key not in _EXPORTED:
        path = Path(_KEPT.name) / f"{len(_EXPORTED)}.onnx"
        given = {"method": "gradient", "example": torch.zeros(1, 3, side, side), **options}
        onnxplain.export(network, path, **given)
        _EXPORTED[key] = onnxplain.load(path, "cpu"), options
    return _EXPORTED[key][0]


def gradient(
    network: nn.Module, x: Tensor, objective: Callable[[Any], Tensor]
) -> tuple[Array, Array]:
    """An objective of the outputs [N], and the gradient of its sum by the images, in float64."""
    given = x.double().requires_grad_()
    scalars = objective(network.double()(given))
    (found,) = torch.autograd.grad(scalars.sum(), given)
    network.float()
    return scalars.detach().numpy(), found.numpy()


def close(found: Array, expected: Array, tolerance: float = 1e-4) -> None:
    assert found.shape == expected.shape
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert error <= tolerance, f"{error:.1e}"
