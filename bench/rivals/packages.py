"""How each package is asked for the product of a cotangent of `y` with the Jacobian by `x`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

import onnxplain

Array = npt.NDArray[Any]

NAMES = ("onnxplain", "onnx-ad")


@dataclass(frozen=True)
class Package:
    """A package: what writes the file, and the names and shapes of seed and gradient in it."""

    name: str
    version: str
    write: Callable[[Path, Path], None]
    seed: str
    gradient: str
    seed_of: Callable[[Array], Array]
    gradient_of: Callable[[Array], Array]


def _ours(source: Path, path: Path) -> None:
    onnxplain.differentiate(source, path, of="y", wrt="x", seed="input")


def _onnx_ad(source: Path, path: Path) -> None:
    import onnx_ad

    model = onnx_ad.reverse(onnx.load(source), inputs=["x"], outputs=["y"], layout="onnx")
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def _same(array: Array) -> Array:
    return array


def packages() -> tuple[Package, ...]:
    """Those of `NAMES`, which must be installed."""
    ours, other = NAMES
    return (
        Package(ours, onnxplain.__version__, _ours, "seed.y", "grad.x", _same, _same),
        Package(
            other,
            version(other),
            _onnx_ad,
            "adj_y",
            "adj_x",
            lambda seed: seed[..., None],  # one direction, of any number
            lambda gradient: np.asarray(gradient[..., 0]),
        ),
    )
