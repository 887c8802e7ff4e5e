"""Networks that end in a map: segmentation, saliency, fully convolutional classifiers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from onnxplain.errors import InputError, SourceError

from .networks import Array, close, exported, gradient, images, seeded, trunk

X = images()
REGION = np.zeros((8, 8))
REGION[2:5, 1:7] = 1


class Last(nn.Module):
    """Channels last, as networks from TensorFlow have them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x).permute(0, 2, 3, 1)


class Several(nn.Module):
    """A dictionary, as torchvision's have it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.network(x)
        return {"out": y, "aux": 2 * y}


def network(*ending: nn.Module, channels: int = 4) -> nn.Module:
    return seeded(lambda: nn.Sequential(trunk(channels), *ending))


def mean_where(y: Tensor, mask: Tensor) -> Tensor:
    return (y * mask).sum((1, 2)) / mask.sum((1, 2))


def over_region(y: Tensor) -> Tensor:
    return mean_where(y[:, 1], torch.from_numpy(REGION)[None])


@pytest.mark.parametrize(
    ("source", "logits"),
    [
        (lambda: network(), lambda y: y),
        (lambda: network(nn.Softmax(1)), None),
        (lambda: Last(network(nn.Softmax(1))), None),
        (lambda: network(nn.Flatten(2), nn.Softmax(1), nn.Unflatten(2, (8, 8))), None),
        (lambda: Several(network()), lambda y: y["out"]),
    ],
    ids=["logits", "softmax", "softmax-nhwc", "softmax-of-rows", "several"],
)
def test_a_class_over_a_region(
    source: Callable[[], nn.Module], logits: Callable[[Any], Tensor] | None
) -> None:
    explainer = exported(source())
    assert explainer.metadata.objective.name == "segment"
    explanation = explainer(X.numpy(), 1, region=REGION)
    plain, read = (source(), logits) if logits else (network(), lambda y: y)
    score, expected = gradient(plain, X, lambda y: over_region(read(y)))
    close(explanation.objective, score)
    close(explanation.pullback, expected)
    with torch.no_grad():
        own = source()(X)
    for name, value in own.items() if isinstance(own, dict) else [("output", own)]:
        close(explanation.outputs[name], value.numpy())


@pytest.mark.parametrize("target", [-1, -2, 3])
def test_by_itself_it_looks_where_the_class_is_predicted(target: int) -> None:
    explanation = exported(network())(X.numpy(), target)

    def objective(y: Tensor) -> Tensor:
        predicted = y.argmax(1)
        scores = []
        for one, at in zip(y, predicted, strict=True):
            area = torch.bincount(at.reshape(-1), minlength=4)
            chosen = (
                area.argsort(descending=True, stable=True)[-1 - target] if target < 0 else target
            )
            mask = (at == chosen) if (at == chosen).any() else torch.ones_like(at)
            scores.append(one[chosen][mask.bool()].mean())
        return torch.stack(scores)

    score, expected = gradient(network(), X, objective)
    close(explanation.objective, score)
    close(explanation.pullback, expected)


@pytest.mark.parametrize("layout", ["NCHW", "NHW"])
def test_a_mask_is_one_class(layout: str) -> None:
    up = nn.Upsample(scale_factor=2, mode="bilinear")
    end = [up, nn.Sigmoid(), *([nn.Flatten(1, 2)] if layout == "NHW" else [])]
    explainer = exported(network(*end, channels=1))
    assert explainer.metadata.objective.settings == {"layout": layout}
    explanation = explainer(X.numpy())
    expected = gradient(
        network(up, channels=1), X, lambda y: mean_where(y[:, 0], (y[:, 0] > 0).double())
    )[1]
    close(explanation.pullback, expected)
    assert explanation.targets.tolist() == [0, 0]


def own_places(y: Tensor, predicted: Tensor, target: int) -> Tensor:
    """The mean of a class where it is predicted [N, C, h, w]; of all places where it is nowhere."""
    of_class = predicted[:, target]
    masks = [one if one.any() else torch.ones_like(one) for one in of_class]
    return mean_where(y[:, target], torch.stack(masks).to(y.dtype))


def test_of_equal_classes_one_is_predicted() -> None:
    """Where all logits are 0, as dead places are, that is the first."""
    source = network(nn.ReLU())
    explainer = exported(source, objective="segment")
    for target in range(4):
        score, expected = gradient(
            source,
            X,
            lambda y, t=target: own_places(y, functional.one_hot(y.argmax(1), 4).movedim(3, 1), t),
        )
        explanation = explainer(X.numpy(), target)
        close(explanation.objective, score)
        close(explanation.pullback, expected)


def test_independent_classes_are_predicted_each_by_itself() -> None:
    explainer = exported(network(nn.Sigmoid()))
    for target in range(4):
        score, expected = gradient(network(), X, lambda y, t=target: own_places(y, y > 0, t))
        explanation = explainer(X.numpy(), target)
        close(explanation.objective, score)
        close(explanation.pullback, expected)


def test_raw_heads_of_a_detector_are_no_map() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network()

        def forward(self, x: Tensor) -> list[Tensor]:
            y = self.network(x)
            return [y, functional.max_pool2d(y, 2), functional.max_pool2d(y, 4)]

    with pytest.raises(SourceError, match=r"raw heads do: for objective detection .* decoded"):
        exported(Heads().eval())
    explainer = exported(Heads().eval(), objective="segment")
    close(
        explainer(X.numpy(), 1, region=REGION).pullback,
        gradient(network(), X, over_region)[1],
    )


@pytest.mark.parametrize("method", ["gradient", "excitation"])
def test_several_classes_at_once(method: str) -> None:
    one = exported(network(), method=method)
    many = exported(network(), method=method, multi_target=True)
    both = many(X.numpy(), [[2, -1], [0, 3]], region=REGION)
    for column, targets in enumerate(([2, 0], [-1, 3])):
        alone = one(X.numpy(), targets, region=REGION)
        close(both.pullback[:, column], alone.pullback)
        close(both.objective[:, column], alone.objective)
        np.testing.assert_array_equal(both.targets[:, column], alone.targets)


def test_excitation_is_that_of_the_reference() -> None:
    from onnxplain.reference.pytorch import explain

    explanation = exported(network(), method="excitation")(X.numpy(), 1, region=REGION)
    score, expected = explain(
        network().double(), X.double(), None, "excitation", objective=over_region
    )
    close(explanation.objective, score.numpy())
    close(explanation.pullback, expected.numpy())


@pytest.mark.parametrize(
    ("region", "message"),
    [
        (np.ones((16, 16)), r"'region' .* has the shape \[8, 8\], or \[2, 8, 8\]"),
        (np.full((8, 8), np.inf), "'region' has NaN or infinite"),
        (-np.ones((8, 8)), "'region' has negative values"),
        (np.zeros((8, 8)), "'region' is 0 everywhere: .*leave it out"),
    ],
)
def test_a_wrong_region_is_a_sentence(region: Array, message: str) -> None:
    explainer = exported(network())
    with pytest.raises(InputError, match=message):
        explainer(X.numpy(), region=region)


def test_a_map_that_reads_either_way_asks() -> None:
    source = network(channels=8)
    for objective in ("segment", None):
        with pytest.raises(SourceError, match=r"8, 8, 8\] has .* either way.* layout=NCHW\|NHWC"):
            exported(source, objective=objective)
    explainer = exported(source, objective="segment", settings={"layout": "NHWC"})
    expected = gradient(source, X, lambda y: mean_where(y[..., 1], torch.from_numpy(REGION)[None]))
    close(explainer(X.numpy(), 1, region=REGION).pullback, expected[1])


@pytest.mark.parametrize("scale", [1e-60, 255, 1e60])
def test_a_regions_scale_tells_nothing(scale: float) -> None:
    explainer = exported(network())
    found, expected = (explainer(X.numpy(), 1, region=f * REGION) for f in (scale, 1))
    close(found.objective, expected.objective)
    close(found.pullback, expected.pullback)


def test_its_picture_shows_the_region(tmp_path: Path) -> None:
    explanation = exported(network())(X.numpy(), 1, region=REGION)
    plain = exported(network())(X.numpy(), 1)
    drawn, without = (np.asarray(e.draw("overlay")) for e in (explanation, plain))
    assert (drawn == 255).all(-1).sum() > (without == 255).all(-1).sum() + 20
    explanation.save(tmp_path / "grid.png", "grid")


class Branching(nn.Module):
    """As LR-ASPP: scores of fine features, to which those of coarse ones are added, enlarged."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 32, 5, 2, 2)
        self.of_fine, self.of_coarse = nn.Conv2d(4, 6, 1), nn.Conv2d(32, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = functional.relu(self.fine(x))
        coarse = functional.relu(self.coarse(fine))
        enlarged = functional.interpolate(coarse, size=fine.shape[2:], mode="bilinear")
        scores = self.of_fine(fine) + self.of_coarse(enlarged)
        return functional.interpolate(scores, size=x.shape[2:], mode="bilinear")


@pytest.mark.parametrize("given", [{}, {"size": "any"}])
def test_no_activation_map_is_one_of_the_scores_themselves(given: dict[str, Any]) -> None:
    """Behind them no weights tell the classes apart."""
    with pytest.raises(SourceError, match=r"comes before most of it, which branches there"):
        exported(seeded(Branching), method="gradcam", **given)
    at_layer = exported(seeded(Branching), method="gradcam", layer="coarse", **given)
    assert at_layer(X.numpy(), 1).pullback.any()
