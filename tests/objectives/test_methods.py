"""Methods that carry something else than cotangents, or stop at a layer, with objectives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from .networks import close, exported, gradient, images, seeded
from .test_detectors import network as detector

X = images()
QUERY = np.arange(1.0, 6.0)
Q = torch.from_numpy(QUERY)


def homogeneous(ending: Callable[[], list[nn.Module]] = list) -> nn.Module:
    """Convolutions without biases: relevances add up to what they explain, and each is the pixel
    times its gradient."""
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 5, 3, padding=1, bias=False),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(5, 5, 3, padding=1, bias=False),
            *ending(),
        )
    )


def row() -> nn.Module:
    return homogeneous(
        lambda: [nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 5, bias=False)]
    )


def cosine(y: Tensor) -> Tensor:
    """Its lengths are constants of relevances, as statistics of norms are."""
    return (y * Q).sum(1) / (y.norm(dim=1).detach() * Q.norm())


CASES: dict[str, tuple[Callable[[], nn.Module], Any, Any, Callable[[Tensor], Tensor]]] = {
    "dot": (
        row,
        {"objective": "embedding", "settings": {"similarity": "dot"}},
        {"query": QUERY},
        lambda y: (y * Q).sum(1),
    ),
    "cosine": (row, {"objective": "embedding"}, {"query": QUERY}, cosine),
    "value": (row, {"objective": "value"}, {"targets": 2, "direction": -1}, lambda y: -y[:, 2]),
    "segment": (
        homogeneous,
        {"objective": "segment"},
        {"targets": 1, "region": np.eye(8)},
        lambda y: y[:, 1].diagonal(dim1=1, dim2=2).mean(1),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_relevances_are_contributions_to_the_objective(case: str) -> None:
    network, options, given, objective = CASES[case]
    explainer = exported(network(), method="lrp-epsilon", **options)
    explanation = explainer(X.numpy(), **given)
    score, slope = gradient(network(), X, objective)
    close(explanation.objective, score)
    close(explanation.pullback, X.numpy() * slope, 1e-3)
    close(explanation.pullback.sum((1, 2, 3)), score, 1e-3)


def test_relevances_of_several_targets_are_those_of_each() -> None:
    options: dict[str, Any] = {"method": "lrp-epsilon", "objective": "value"}
    one = exported(row(), **options)
    many = exported(row(), multi_target=True, **options)
    both = many(X.numpy(), [[0, 2], [1, 3]])
    for column, targets in enumerate(([0, 1], [2, 3])):
        close(both.pullback[:, column], one(X.numpy(), targets).pullback)


def test_objectness_is_a_gate_of_relevances() -> None:
    """A score is class times objectness: it is what the class contributed, and counted once."""
    network = detector("yolov5")
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.bias.data.zero_()
    explainer = exported(network, 64, method="lrp-epsilon")
    explanation = explainer(images(2, 64).numpy(), 1)
    close(explanation.pullback.sum((1, 2, 3)), explanation.objective, 1e-2)


@pytest.mark.parametrize("upsampled", [False, True])
def test_a_map_of_scores_is_no_layer_of_an_activation_map(upsampled: bool) -> None:
    """Its channels are classes: the layer is what the last convolution reads."""
    larger = [nn.Upsample(scale_factor=2)] * upsampled
    network = homogeneous(lambda: [nn.ReLU(), nn.Conv2d(5, 4, 1), *larger])
    side = 16 if upsampled else 8
    region = np.zeros((side, side))
    region[:4, 2:7] = 1
    explainer = exported(network, method="hirescam", objective="segment")
    features = network[:5](X).detach().requires_grad_()
    scores = (network[5:](features) * torch.from_numpy(region).float()).sum((2, 3)) / region.sum()
    target = int(scores.sum(0).argmax())
    (slope,) = torch.autograd.grad(scores[:, target].sum(), features)
    expected = (features * slope).sum(1, keepdim=True).relu().detach()
    found = explainer(X.numpy(), target, region=region).pullback
    close(found, functional.interpolate(expected, (16, 16), mode="bilinear").numpy())
    assert explainer.metadata.parameters["layer"] == "4"


def test_outputs_that_are_not_explained_do_not_move_the_layer() -> None:
    class Supervised(nn.Module):
        """A second map from an early layer, as networks are trained with."""

        def __init__(self) -> None:
            super().__init__()
            self.early, self.late = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 5, 3, padding=1)
            self.head, self.side = nn.Conv2d(5, 4, 1), nn.Conv2d(5, 4, 1)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            early = self.early(x).relu()
            late = self.late(early).relu()
            return {"out": self.head(late), "side": self.side(early)}

    explainer = exported(seeded(Supervised), method="gradcam", objective="segment")
    network, given = seeded(Supervised), X
    early = network.early(given).relu()
    late = network.late(early).relu().detach().requires_grad_()
    network.head(late)[:, 1].mean((1, 2)).sum().backward()
    expected = (late.grad.mean((2, 3), keepdim=True) * late).sum(1, keepdim=True).relu()
    found = explainer(X.numpy(), 1, region=np.ones((16, 16))).pullback
    close(found, expected.detach().numpy())
