"""The settings of a feature visualisation, for its command and its Python call."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from onnxplain import options
from onnxplain.errors import InputError
from onnxplain.options import option
from onnxplain.vital.recipes import NEURON_PRIORS, NEURON_WEIGHTS, recipe_of

OBJECTIVES = {
    "vital": "the activations of matched layers are distributed as those of the references",
    "activation": "plain activation maximisation, for comparison",
    "fourier": "the same, with the picture parametrised by its spectrum (Lucid)",
}
"""What is optimised."""

RELEVANCES = {
    "lrp": "layer-wise relevance propagation by the z+ rule, from all positions of the channel",
    "restricted": "the same, from the position where the layer's activation is most like the "
    "channel alone",
    "guided": "guided backpropagation",
}
"""Ways to find the relevance of earlier layers to an inner neuron."""

POOL_RULES = ("window", "vital")

SKIP_RULES = {
    "ratio": "where a block and its shortcut meet, each takes its part by magnitude",
    "half": "half each",
    "branch-ratio": "as ratio, but nothing to a shortcut that is the identity",
    "branch-half": "as half, but nothing to a shortcut that is the identity",
}
"""In the code that VITAL's relevance is from: flows_skip, flows_skip_simple, latest, simple."""


@dataclass(frozen=True)
class Start:
    """What a visualisation begins with: a phase of so many steps before the others.

    Attributes:
        pooled: whether the network sees all at half its size.
        size: of the picture; None for a pooled start, whose picture has the visualisation's own.
    """

    pooled: bool
    size: int | None
    steps: int


@dataclass(frozen=True)
class Flow:
    """How relevance comes from an inner neuron to the layers before it.

    Attributes:
        kind: one of `RELEVANCES`.
        pool: one of `POOL_RULES`.
        skip: one of `SKIP_RULES`.
        share: of the elements of each layer's relevance, the greatest, those that it passes on.
    """

    kind: str = "lrp"
    pool: str = "window"
    skip: str = "ratio"
    share: float = 1.0


FOURIER_RATE = 0.05
"""Lucid's learning rate for a spectrum; pixels have VITAL's, 1.0."""


@dataclass(frozen=True)
class Settings:
    """The settings of an optimisation; the paper's unless given (VITAL, §4 and appendix).

    Beyond what the fields declare: a `learning_rate` of None is 1.0, or 0.05 for a spectrum. Over
    the first `warm_up` steps, a twentieth of all at most, the rate rises; then it falls as a
    cosine. `weights` and `priors` of None are the paper's; `priors` weigh the total variation's
    mean, its norm, and the picture's norm, in the network's normalised space.
    """

    objective: str = option(
        "vital",
        "vital; or, for comparison, activation (plain maximisation) or fourier (the same on the "
        "picture's spectrum).",
        choices=OBJECTIVES,
    )
    steps: int = option(2000, "Steps of the optimisation.", least=1)
    learning_rate: float | None = option(
        None, "Adam's learning rate.", unset="1, or 0.05 for a spectrum"
    )
    warm_up: int = option(100, "Steps over which the learning rate rises.", least=0)
    roll: int = option(30, "Pixels that each step may shift the picture by, at most.", least=0)
    mirror: bool = option(False, "Mirror the picture in a random half of the steps.")
    weights: tuple[float, ...] | None = option(
        None,
        "Weights of the matched layers, with commas between.",
        name="layer_weights",
        unset="the paper's",
    )
    priors: tuple[float, float, float] | None = option(
        None,
        "Weights of the total variation (its mean, its norm) and of the picture's norm: "
        "0,3e-7,3e-7.",
        unset="the paper's",
    )
    relevance: str = option(
        "lrp",
        "How relevant earlier layers are to a channel: by lrp, restricted or guided.",
        choices=RELEVANCES,
    )
    together: int = option(
        1,
        "Pictures per class; their mean activations are matched.",
        least=1,
    )
    references: int = option(
        50,
        "Views of the references; random crops make up for too few photographs.",
        least=1,
        name="count",
    )
    resize: int | None = option(
        None,
        "The references' shorter side in pixels, before the network's input is cropped.",
        least=1,
        unset="8/7 of the input's: VITAL's 256 for 224",
    )
    ranking: str = option(
        "max",
        "What photographs are ranked by for a channel: max, its greatest activation; mean, over "
        "the positions; or patches, the mean in the best of a sliding window's patches, as VITAL.",
        choices=("max", "mean", "patches"),
    )
    pool_rule: str = option(
        "window",
        "How relevance passes a max-pool: window, as the average of its own; or vital, as an "
        "average over 2 x 2 with stride 2 where that gives the same size, else as window.",
        choices=POOL_RULES,
    )
    skip_rule: str = option(
        "ratio",
        "How relevance parts where a block and its shortcut meet: ratio, by magnitude; half; and "
        "branch-ratio, branch-half, with nothing to a shortcut that is the identity.",
        choices=SKIP_RULES,
    )
    relevance_share: float = option(
        1.0,
        "Share of each layer's relevance that is passed on, the greatest elements first.",
        above=0,
        most=1,
    )
    batch_norm: str = option(
        "folded",
        "Weights that relevance passes through: folded (BatchNorm merged in) or apart (the "
        "convolution's own).",
        choices=("folded", "apart"),
    )
    betas: tuple[float, float] | None = option(
        None, "Adam's decay rates.", unset="VITAL's, 0.5,0.9"
    )
    clip: bool = option(True, "Clip the picture to valid pixels after each step.")
    transparency: str = option(
        "vital",
        "The transparent pictures: vital, opaque from the gradient's 98th percentile on, colours "
        "stretched; or smooth, from the 90th, blurred.",
        choices=("vital", "smooth"),
    )
    seed: int = option(
        0, "Seed for the noise, the shifts, the crops and the choice of photographs.", least=0
    )

    def checked(self) -> Settings:
        """The same.

        Raises:
            InputError: a setting out of range, or none of the choices.
        """
        options.check(self)
        numbers = [self.rate, *(self.weights or ()), *(self.priors or ())]
        if not all(math.isfinite(number) and number >= 0 for number in numbers):
            raise InputError("the learning rate and all weights must be finite and not negative")
        if not all(0 <= beta < 1 for beta in self.betas or ()):
            raise InputError("Adam's betas must be in [0, 1)")
        return self

    @property
    def flow(self) -> Flow:
        return Flow(self.relevance, self.pool_rule, self.skip_rule, self.relevance_share)

    @property
    def fourier(self) -> bool:
        return self.objective == "fourier"

    @property
    def rate(self) -> float:
        if self.learning_rate is not None:
            return self.learning_rate
        return FOURIER_RATE if self.fourier else 1.0


def with_recipe(settings: Settings, source: str, layers: Sequence[str], neuron: bool) -> Settings:
    """Fill in the paper's weights and priors.

    Args:
        source: the network's name.
        layers: the matched layers' names. A class's weights and priors are the paper's if these
            are the paper's layers too; otherwise 1, and no priors.
        neuron: whether an inner neuron is visualised rather than a class.

    Raises:
        InputError: weights were given for a different number of layers.
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
