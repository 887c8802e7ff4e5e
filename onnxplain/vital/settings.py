"""How a feature visualisation is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import InputError
from onnxplain.vital.graphs.relevance import check_relevance
from onnxplain.vital.graphs.stages import NEURON_PRIORS, NEURON_WEIGHTS, recipe_of

OBJECTIVES = {
    "vital": "the activations of matched layers are distributed as those of the references",
    "activation": "plain activation maximisation, to compare with",
    "fourier": "the same with the picture parametrised by its spectrum (Lucid)",
}
"""What is optimised."""

FOURIER_RATE = 0.05
"""Lucid's learning rate of a spectrum; pixels have VITAL's, 1.0."""


@dataclass(frozen=True)
class Settings:
    """The settings of an optimisation; the paper's where not given (VITAL, §4 and appendix).

    Attributes:
        objective: one of `OBJECTIVES`.
        steps: how many.
        learning_rate: of Adam at its height; None for 1.0, or 0.05 of a spectrum.
        warm_up: the first steps, a twentieth at most, over which the rate rises; over the others it
            falls as a cosine.
        roll: the farthest that a step moves the picture in each direction, in pixels.
        mirror: whether every other step, by chance, sees the picture mirrored.
        weights: of the matched layers, from the image on; None for the paper's.
        priors: weights of the total variation's mean, of its norm, and of the picture's norm, in
            the network's normalised space; None for the paper's.
        relevance: of earlier layers to an inner neuron, one of `onnxplain.vital.graphs.RELEVANCES`.
        references: how many views of the references are taken.
        seed: of the noise to start from, the rolls, and the references' crops.
    """

    objective: str = "vital"
    steps: int = 2000
    learning_rate: float | None = None
    warm_up: int = 100
    roll: int = 30
    mirror: bool = False
    weights: tuple[float, ...] | None = None
    priors: tuple[float, float, float] | None = None
    relevance: str = "lrp"
    references: int = 50
    seed: int = 0

    def checked(self) -> Settings:
        """The same.

        Raises:
            InputError: a setting that cannot be.
            SourceError: an unknown kind of relevance.
        """
        if self.objective not in OBJECTIVES:
            raise InputError(
                f"the objective is one of {', '.join(OBJECTIVES)}, not '{self.objective}'"
            )
        for name, value, least in (
            ("steps", self.steps, 1),
            ("warm_up", self.warm_up, 0),
            ("roll", self.roll, 0),
            ("references", self.references, 1),
            ("seed", self.seed, 0),
        ):
            if value < least:
                raise InputError(f"{name} must be at least {least}, not {value}")
        numbers = [self.rate, *(self.weights or ()), *(self.priors or ())]
        if not np.isfinite(numbers).all() or min(numbers) < 0:
            raise InputError("the learning rate and all weights must be finite and not negative")
        check_relevance(self.relevance)
        return self

    @property
    def fourier(self) -> bool:
        return self.objective == "fourier"

    @property
    def rate(self) -> float:
        if self.learning_rate is not None:
            return self.learning_rate
        return FOURIER_RATE if self.fourier else 1.0

    def rates(self) -> NDArray[np.float32]:
        """The learning rate of each step, [T]: a linear warm-up, then a cosine down to 0."""
        step = np.arange(self.steps)
        warm = min(self.warm_up, self.steps // 20)
        rising = (step + 1) / max(warm, 1)
        falling = 0.5 * (1 + np.cos(np.pi * (step - warm) / max(self.steps - warm, 1)))
        return (self.rate * np.where(step < warm, rising, falling)).astype(np.float32)

    def shifts(self) -> NDArray[np.int64]:
        """By how much each step rolls the picture, down and to the right, [T, 2]."""
        random = np.random.default_rng([self.seed, 1])
        return random.integers(-self.roll, self.roll + 1, (self.steps, 2))

    def mirrored(self) -> NDArray[np.int64]:
        """Which steps see the picture mirrored, 1 or 0, [T]."""
        random = np.random.default_rng([self.seed, 2])
        return random.integers(0, 2, self.steps) * int(self.mirror)


def with_recipe(settings: Settings, source: str, layers: Sequence[str], neuron: bool) -> Settings:
    """Fill in the paper's weights and priors.

    Args:
        source: the network's name.
        layers: the matched layers' names. A class's weights and priors are the paper's where these
            are the paper's layers too; else 1, and no priors.
        neuron: whether an inner neuron is visualised, and no class.

    Raises:
        InputError: weights were given for another number of layers.
    """
    recipe, count = recipe_of(source), len(layers)
    if settings.weights is not None and len(settings.weights) != count:
        raise InputError(
            f"{len(settings.weights)} weights for {count} matched layers; give one for each"
        )
    weights: Sequence[float] = [1.0] * count
    priors = (0.0, 0.0, 0.0)
    if neuron:
        weights, priors = NEURON_WEIGHTS[:count], NEURON_PRIORS
        weights = [*weights, *[1.0] * (count - len(weights))]
    elif recipe is not None and recipe.layers == tuple(layers):
        weights, priors = recipe.weights, recipe.priors
    return replace(
        settings,
        weights=tuple(weights) if settings.weights is None else settings.weights,
        priors=priors if settings.priors is None else settings.priors,
    )
