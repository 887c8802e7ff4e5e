"""The graphs of a feature visualisation beside the PyTorch reference, on the same pictures."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from onnxplain.contract import steps
from onnxplain.contract.explain import IMAGE
from onnxplain.export.sources.source import torch_network
from onnxplain.reference.pytorch import vital
from onnxplain.runtime.inputs.batches import preprocess
from onnxplain.runtime.sessions import Session, open_session
from onnxplain.vital.graphs.adam import BETAS
from onnxplain.vital.graphs.features import write_features
from onnxplain.vital.graphs.step import write_step
from onnxplain.vital.graphs.subject import Subject, read_subject
from onnxplain.vital.recipes import NEURON_PRIORS, NEURON_WEIGHTS, Recipe, recipe_of
from onnxplain.vital.settings import Flow

Arrays = dict[str, np.ndarray]

PARITY = 1e-3
"""Relative L2, of the loss and of the image's gradient (issue 7)."""


def relative(found: Any, expected: Any) -> float:
    """‖found − expected‖₂ / ‖expected‖₂."""
    expected = np.asarray(expected, np.float64)
    size = float(np.linalg.norm(expected))
    assert size > 0, "nothing to compare with"
    return float(np.linalg.norm(np.asarray(found, np.float64) - expected)) / size


@dataclass(frozen=True)
class Traced:
    """A network as a graph and as a module, and its recipe."""

    subject: Subject
    module: nn.Module
    recipe: Recipe
    dtype: torch.dtype


def traced(name: str, size: int, dtype: torch.dtype = torch.float64) -> Traced:
    """A network by name: EfficientNet-Lite0 as trained on ImageNet, others as seed 0 has them.

    The module is of `dtype`.
    """
    weights = "DEFAULT" if name == "efficientnet-lite0" else "none"
    recipe = recipe_of(name)
    assert recipe is not None
    square = (size, size)
    subject = read_subject(name, weights=weights, size=square, layers=recipe.layers)
    module = torch_network(name, weights, square).module
    return Traced(subject, _frozen(module, dtype), recipe, dtype)


def traced_module(module: nn.Module, size: int, layers: Sequence[str]) -> Traced:
    """A network that is no one's."""
    subject = read_subject(module, example=torch.zeros(1, 3, size, size), layers=layers)
    recipe = Recipe(tuple(layers), (1.0,) * len(layers))
    return Traced(subject, _frozen(module, torch.float64), recipe, torch.float64)


def _frozen(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    return copy.deepcopy(module).to(dtype).eval().requires_grad_(False)


class Case:
    """What is visualised of a network, with templates from photographs.

    Attributes:
        weights, priors: the recipe's; they may be changed.
        templates, importances: of the graph, each [1, C, P] and [1, C], float32.
        expected: the reference's of the same, [C, P] and [C].
        chosen: the class or the channel; of a layer, the most active one unless it is given.

    Args:
        neuron: which of the matched layers is the neuron's; None for a class.
    """

    def __init__(
        self,
        network: Traced,
        photographs: Sequence[np.ndarray],
        folder: Path,
        neuron: int | None = None,
        relevance: str = "lrp",
        chosen: int | None = None,
    ) -> None:
        self.relevance, self.folder = relevance, folder
        whole, names = network.subject, network.recipe.layers
        self.subject = whole
        self.weights, self.priors = network.recipe.weights, network.recipe.priors
        self.is_neuron = neuron is not None
        if neuron is not None:
            values = list(whole.layers.items())
            self.subject = dataclasses.replace(
                whole, layers=dict(values[: neuron + 1]), neuron=values[neuron]
            )
            names = names[: neuron + 1]
            self.weights, self.priors = NEURON_WEIGHTS[: neuron + 1], NEURON_PRIORS
        own = None if neuron is None else names[-1]
        self.network = vital.Network(network.module, names, own, relevance)
        self.references = np.stack(
            [preprocess(Image.fromarray(pixels), whole.pre) for pixels in photographs]
        )
        self.dtype = network.dtype
        exact = self.tensor(self.references)
        if chosen is None:
            found, _ = dataclasses.replace(self.network, neuron=None).quantities(exact, None)
            chosen = int(found[-1].mean((0, 2)).argmax()) if self.is_neuron else 0
        self.chosen = chosen
        self.expected = vital.templates(self.network, exact, chosen if self.is_neuron else None)
        self.templates, self.importances = self._templates()

    def _templates(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        path = self.folder / "features.onnx"
        write_features(self.subject, path, Flow(self.relevance))
        inputs: Arrays = {IMAGE: self.references}
        if self.is_neuron:
            inputs[steps.CHANNEL] = np.full(len(self.references), self.chosen)
        found = open_session(path, "cpu").run(inputs)
        layers = range(len(self.network.layers))
        falling = [-np.sort(-found[steps.quantity(i)]).mean(0, keepdims=True) for i in layers]
        if not self.is_neuron:
            return falling, [np.ones_like(t[..., 0]) for t in falling]
        return falling, [found[steps.importance(i)].mean(0, keepdims=True) for i in layers]

    def open(self, provider: str = "cpu", **options: Any) -> Session:
        """The step graph; options are those of `write_step`."""
        path = self.folder / f"step-{options}.onnx"
        if not path.exists():
            write_step(self.subject, path, flow=Flow(self.relevance), **options)
        return open_session(path, provider)

    def start(self, moving: np.ndarray, count: int = 1) -> Arrays:
        """The inputs of every step graph, for `count` steps that neither roll nor mirror."""
        n = len(moving)
        return {
            (IMAGE if moving.ndim == 4 else steps.SPECTRUM): moving,
            **dict.fromkeys((steps.FIRST_MOMENT, steps.SECOND_MOMENT), np.zeros_like(moving)),
            steps.MAGNITUDE: np.zeros((n, *self.references.shape[1:]), np.float32),
            steps.STEP: np.array(0),
            steps.LOSSES: np.zeros((count, n), np.float32),
            steps.SHIFTS: np.zeros((count, 2), np.int64),
            steps.MIRRORED: np.zeros(count, np.int64),
            steps.LEARNING_RATES: np.full(count, 0.05, np.float32),
            steps.PRIORS: np.array(self.priors, np.float32),
        }

    def aligned(self, n: int = 1) -> Arrays:
        """What an alignment has beside."""
        given: Arrays = {steps.WEIGHTS: np.array(self.weights, np.float32)}
        if self.is_neuron:
            given[steps.CHANNEL] = np.full(n, self.chosen)
        for i, template in enumerate(self.templates):
            given[steps.template(i)] = np.repeat(template, n, axis=0)
            if self.is_neuron:
                given[steps.importance(i)] = np.repeat(self.importances[i], n, axis=0)
        return given

    def tensor(self, array: np.ndarray) -> Tensor:
        """For the reference."""
        return torch.from_numpy(array.copy()).to(self.dtype)

    def channels(self, images: Tensor) -> Tensor | None:
        return torch.full((len(images),), self.chosen) if self.is_neuron else None

    def cost(self, images: Tensor) -> Tensor:
        """The reference's loss of pictures, [N]."""
        n = len(images)
        sides = [
            [self.tensor(a).expand(n, *a.shape[1:]) for a in arrays]
            for arrays in (self.templates, self.importances)
        ]
        objective = vital.Objective(*sides, self.weights, self.priors)
        return objective.loss(self.network, images, self.channels(images))

    def let_layers_weigh_the_same(self) -> None:
        """Weigh each layer by 1 / its loss at noise, so that no layer hides another."""
        noise = self.tensor(np.random.default_rng(0).standard_normal(self.references[:1].shape))
        self.priors, priors = (0.0, 0.0, 0.0), self.priors
        found = []
        for row in np.eye(len(self.weights)):
            self.weights = tuple(row.tolist())
            found.append(1 / float(self.cost(noise)[0]))
        self.weights, self.priors = tuple(found), priors

    def reference(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The reference's loss and gradient."""
        leaf = self.tensor(images).requires_grad_()
        loss = self.cost(leaf)
        loss.sum().backward()
        assert leaf.grad is not None
        return loss.detach().numpy(), leaf.grad.numpy()

    @cached_property
    def noise(self) -> np.ndarray:
        """N(0, 1), [1, 3, H, W], where the gradient is smooth."""
        return self.smooth(lambda picture: picture)

    def smooth(self, see: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """N(0, 1), from the first seed at which the gradient of what is seen of it is smooth.

        Where a preactivation is within float32's rounding of 0 (or of another rank's value), the
        gradient jumps, and no two float32 programs agree. The reference alone is asked.
        """
        for seed in range(40):
            random = np.random.default_rng(seed)
            picture = random.standard_normal((1, *self.references.shape[1:])).astype(np.float32)
            seen = see(picture)
            _, gradient = self.reference(seen)
            if all(relative(near, gradient) < 1e-4 for near in self.nearby(seen, seed)):
                return picture
        raise AssertionError("no noise is away from the kinks")

    def nearby(self, picture: np.ndarray, seed: int = 0) -> Iterator[np.ndarray]:
        """The reference's gradient where the picture is rounded otherwise, twice."""
        random = np.random.default_rng([seed, 1])
        for _ in range(2):
            rounding = 1 + 3e-6 * random.standard_normal(picture.shape)
            yield self.reference(picture * rounding)[1]


def gradient(outputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """The gradient of a first step, whose first moment is (1 − β₁) g."""
    return outputs[steps.following(steps.FIRST_MOMENT)] / (1 - BETAS[0])


def losses(outputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """Of each step, [T, N]."""
    return outputs[steps.following(steps.LOSSES)]


def parity(case: Case, graph: Session, images: np.ndarray) -> tuple[float, float]:
    """The relative L2 of loss and gradient."""
    outputs = graph.run(case.start(images) | case.aligned(len(images)))
    loss, expected = case.reference(images)
    return relative(losses(outputs)[0], loss), relative(gradient(outputs), expected)
