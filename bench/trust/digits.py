"""Digits somewhere on a canvas, among pieces of others: where what shows the class is, is known."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.nn import functional

SIZE = 48
_LEAST, _MOST = 12, 25  # pixels of a digit's side, so that a mosaic's are known too
_PIECES = 4
_TRAINED_ON, _STEPS, _BATCH = 1500, 500, 64


def canvases(
    count: int, seed: int, test: bool
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.bool_]]:
    """Grey pictures [N,48,48], their classes, and where the digit's strokes are.

    Args:
        test: of the digits that the network is not trained on.
    """
    (digits, known), random = _digits(), np.random.default_rng(seed)
    own = range(_TRAINED_ON, len(digits)) if test else range(_TRAINED_ON)
    pictures = np.zeros((count, SIZE, SIZE), np.uint8)
    masks = np.zeros(pictures.shape, bool)
    chosen = random.choice(own, count)
    for picture, mask, i in zip(pictures, masks, chosen, strict=True):
        picture += random.integers(0, 40, picture.shape, np.uint8)
        for _ in range(_PIECES):
            piece = digits[random.choice(own)].reshape(2, 4, 2, 4).swapaxes(1, 2)
            _put(picture, piece[tuple(random.integers(0, 2, 2))], 8, random)
        at, side = _put(picture, digits[i], int(random.integers(_LEAST, _MOST)), random)
        mask[at] = _sized(digits[i], side) > 64
    return pictures, known[chosen], masks


@cache
def _digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pictures [N,8,8], and their classes."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return (data.images * (255 / 16)).astype(np.uint8), data.target.astype(np.int64)


def _put(
    picture: NDArray[np.uint8], shape: NDArray[np.uint8], side: int, random: np.random.Generator
) -> tuple[tuple[slice, slice], int]:
    """Put a shape somewhere, over what is there."""
    y, x = random.integers(0, SIZE - side + 1, 2)
    at = slice(y, y + side), slice(x, x + side)
    picture[at] = np.maximum(_sized(shape, side), random.integers(0, 40, (side, side), np.uint8))
    return at, side


def _sized(shape: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(shape).resize((side, side), Image.Resampling.BILINEAR))


def untrained() -> nn.Module:
    """A network of images in [-1, 1]."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 5, stride=2, padding=2), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()),
        *(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(64, 10)),
    )


def train(network: nn.Module, progress: Callable[[int, int], object]) -> float:
    """Its accuracy then, on digits it was not trained on.

    Args:
        progress: called with how many steps are done.
    """
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, total_steps=_STEPS)
    for step in range(_STEPS):
        pictures, classes, _ = canvases(_BATCH, step, test=False)
        loss = functional.cross_entropy(network(_as_input(pictures)), torch.from_numpy(classes))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        progress(step + 1, _STEPS)
    network.eval()
    pictures, classes, _ = canvases(500, _STEPS, test=True)
    with torch.no_grad():
        right = network(_as_input(pictures)).argmax(1) == torch.from_numpy(classes)
    return float(right.float().mean())


def _as_input(pictures: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(pictures[:, None] / np.float32(127.5) - 1)


def write_canvases(folder: Path, masks: Path, count: int) -> tuple[dict[Path, int], float]:
    """Test pictures as files, with their classes, and beside them where each digit's strokes are.

    Returns:
        The class by file, and the share of all pixels that are strokes.
    """
    for one in (folder, masks):
        one.mkdir(parents=True, exist_ok=True)
    pictures, classes, strokes = canvases(count, _STEPS + 1, test=True)
    of = {}
    for i, picture in enumerate(pictures):
        path = folder / f"{i:03d}.png"
        Image.fromarray(picture).save(path)
        Image.fromarray(np.where(strokes[i], 255, 0).astype(np.uint8)).save(masks / path.name)
        of[path] = int(classes[i])
    return of, float(strokes.mean())
