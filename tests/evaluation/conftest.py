"""A small classifier, explain graphs of it, and a folder of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import onnxplain

from .small import MEAN, METHODS, SIDE, STD, small_network


@pytest.fixture(scope="session")
def network() -> nn.Module:
    return small_network()


@pytest.fixture(scope="session")
def graphs(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By method."""
    folder, example = tmp_path_factory.mktemp("evaluated"), torch.zeros(2, 3, SIDE, SIDE)
    paths = {method: folder / f"{method}.explain.onnx" for method in METHODS}
    for method, path in paths.items():
        onnxplain.export(network, path, example=example, method=method, mean=MEAN, std=STD)
    return paths


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images of noise and colour, which are of two classes at least."""
    folder, random = tmp_path_factory.mktemp("images"), np.random.default_rng(5)
    for i in range(4):
        colour = random.integers(0, 256, (1, 1, 3))
        noise = random.integers(-60, 60, (SIDE, SIDE, 3))
        pixels = (colour + noise).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder
