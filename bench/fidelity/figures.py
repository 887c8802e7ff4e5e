"""What each point of difference is measured with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import onnxplain

Array = NDArray[Any]

SMALL = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
IMAGES = np.random.default_rng(0).standard_normal((4, 3, 32, 32)).astype(np.float32)
TARGET = 1


@dataclass(frozen=True)
class Figures:
    """Relative L2 to theirs; None where there is no such figure.

    Attributes:
        default: of ours.
        option: of ours with the option that makes it theirs.
        before: of the rule that was ours before it was theirs.
    """

    default: float
    option: float | None = None
    before: float | None = None


def relative(found: Any, expected: Any) -> float:
    """‖found − expected‖₂ / ‖expected‖₂."""
    found, expected = (np.asarray(x, np.float64) for x in (found, expected))
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def explained(module: nn.Module, folder: Path, images: Array = SMALL, **options: Any) -> Array:
    """Our pullback of class `TARGET`."""
    path = folder / "explain.onnx"
    onnxplain.export(module, path, example=torch.zeros(1, *images.shape[1:]), **options)
    found: Array = onnxplain.load(path, "cpu")(images, TARGET).pullback
    return found


def seeded(kind: type[nn.Module]) -> Any:
    torch.manual_seed(0)
    return kind().eval()
