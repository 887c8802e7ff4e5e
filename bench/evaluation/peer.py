"""The scores of an evaluation by Quantus's own loops over a PyTorch network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import captum.attr
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from onnxplain.evaluation.metrics import MOSAIC, PATCHES, RANDOMISED, Metric, part
from onnxplain.evaluation.scoring import Tiles, mosaic_of
from onnxplain.reference.pytorch import explain

Array = NDArray[Any]


class OfPixels(nn.Module):
    """A network of normalised images as one of pixels in [-1, 1]."""

    def __init__(
        self, network: nn.Module, mean: Any, std: Any, layer: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.layer = layer
        self.mean = torch.tensor(mean).reshape(-1, 1, 1)
        self.std = torch.tensor(std).reshape(-1, 1, 1)

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


DIRECTIONS = {"gradient", "guided", "excitation", "semantic"}
"""Those of which the attribution times the image is taken where a metric asks for it."""


def attribution(
    of: OfPixels, pixels: Array, targets: Any, method: str, temperature: float | None = None
) -> Array:
    """By Captum, and where it has no such method by the PyTorch reference (Captum's guided
    backpropagation knows no ReLU6).

    Args:
        pixels: [N,C,H,W] in [-1, 1].
        method: one of `DIRECTIONS`, "input-x-gradient", or "gradcam" of the layer `of.layer`.
    """
    x = torch.from_numpy(np.asarray(pixels, np.float32)).requires_grad_()
    y = torch.as_tensor(np.asarray(targets))
    if method == "gradient":
        found = captum.attr.Saliency(of).attribute(x, y, abs=False)
    elif method == "input-x-gradient":
        found = captum.attr.InputXGradient(of.network).attribute(of.normalised(x), y)
    elif method == "gradcam":
        maps = captum.attr.LayerGradCam(of.network, of.layer)
        low = maps.attribute(of.normalised(x), y, relu_attributions=True)
        found = captum.attr.LayerAttribution.interpolate(low, x.shape[2:], "bilinear")
    else:
        found = explain(of, x, y, method, temperature)[1]
    answer: Array = found.detach().numpy()
    return answer


def without_onednn(*given: Any, **options: Any) -> Array:
    """`attribution` by PyTorch's own kernels: as right, and rounded otherwise."""
    with torch.backends.mkldnn.flags(enabled=False):  # type: ignore[no-untyped-call]
        return attribution(*given, **options)


def score(
    metric: Metric,
    of: OfPixels,
    method: str,
    image: Array,
    target: int,
    tiles: Tiles | None,
    seed: int,
    classes: int,
    temperature: float | None = None,
    explain: Callable[[Array, Any], Array] | None = None,
) -> float:
    """What `onnxplain.evaluation.scoring.score` gives of an explain graph.

    Args:
        explain: instead of `attribution`, of pixels and targets.
    """
    usual = partial(attribution, method=method, temperature=temperature)
    attributed = explain or partial(usual, of)
    height, width = image.shape[2:]
    made = metric.made(height, width, classes, seed)
    given: dict[str, Any] = {"x_batch": image, "y_batch": np.array([target]), "a_batch": None}
    model: nn.Module = of
    randomised = metric.on == RANDOMISED
    x = image

    def explain_func(model: Any, inputs: Any, targets: Any, **_: Any) -> Array:
        found = usual(model, inputs, targets) if randomised else attributed(inputs, targets)
        return found * inputs if metric.times_image and method in DIRECTIONS else found

    if metric.on == MOSAIC:
        assert tiles is not None
        x, where = mosaic_of(tiles, seed)
        given |= {"x_batch": x.astype(np.float32), "custom_batch": [where]}
    if metric.on == PATCHES:
        side = part(height, width, 4)
        model = OfPatches(of, torch.from_numpy(image), side)
        sums = nn.functional.avg_pool2d(torch.from_numpy(attributed(image, [target])), side).sum(
            1, keepdim=True
        )
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
