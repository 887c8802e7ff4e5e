"""The same scores by Quantus's own loops over a PyTorch network."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from onnxplain.evaluation.metrics import MOSAIC, PATCHES, Metric, part
from onnxplain.evaluation.scoring import Tiles, mosaic_of
from onnxplain.reference.pytorch import explain


class OfPixels(nn.Module):
    """A network of normalised images as one of pixels in [-1, 1]."""

    def __init__(self, network: nn.Module, mean: Any, std: Any) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).reshape(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(-1, 1, 1))

    def normalised(self, pixels: Tensor) -> Tensor:
        normalised: Tensor = ((pixels + 1) / 2 - self.mean) / self.std
        return normalised

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.network(self.normalised(pixels))
        return logits


class OfPatches(nn.Module):
    """Of an image's patches, there (1) or grey (0)."""

    def __init__(self, network: nn.Module, image: Tensor, side: int) -> None:
        super().__init__()
        self.network, self.image, self.side = network, image, side

    def forward(self, there: Tensor) -> Tensor:
        logits: Tensor = self.network(self.image * there.kron(torch.ones(self.side, self.side)))
        return logits


def attribution(of: OfPixels, pixels: np.ndarray, targets: Any, method: str) -> np.ndarray:
    x, y = torch.from_numpy(np.asarray(pixels, np.float32)), torch.as_tensor(np.asarray(targets))
    if method == "input-x-gradient":
        return explain(of.network, of.normalised(x), y, method)[1].numpy()
    return explain(of, x, y, method)[1].numpy()


def score(
    metric: Metric,
    of: OfPixels,
    method: str,
    image: np.ndarray,
    target: int,
    tiles: Tiles | None,
    seed: int,
    classes: int,
) -> float:
    height, width = image.shape[2:]
    made = metric.made(height, width, classes, seed)
    given: dict[str, Any] = {"x_batch": image, "y_batch": np.array([target]), "a_batch": None}
    model: nn.Module = of
    x = image

    def explain_func(model: Any, inputs: Any, targets: Any, **_: Any) -> np.ndarray:
        a = attribution(of, inputs, targets, method)
        is_direction = method != "input-x-gradient"
        return a * inputs if metric.times_image and is_direction else a

    if metric.on == MOSAIC:
        assert tiles is not None
        x, where = mosaic_of(tiles, seed)
        given |= {"x_batch": x.astype(np.float32), "custom_batch": [where]}
    if metric.on == PATCHES:
        side = part(height, width, 4)
        model = OfPatches(of, torch.from_numpy(image), side)
        sums = nn.functional.avg_pool2d(
            torch.from_numpy(attribution(of, image, [target], method)), side
        ).sum(1, keepdim=True)
        rows, columns = height // side, width // side
        ones = np.ones((1, 1, rows, columns), np.float32)
        given |= {"x_batch": ones, "a_batch": (sums - sums.mean()).numpy() * side**2}
    np.random.seed(seed)
    (found,) = made(
        model=model.eval(),
        channel_first=True,
        explain_func=explain_func,
        softmax=metric.softmax,
        device="cpu",
        **given,
    )
    return float(found)
