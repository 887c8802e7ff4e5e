"""The paper's choices for networks by name: which layers are matched, and the weights."""

from __future__ import annotations

import re
from dataclasses import dataclass

STAGES = 5
"""How many layers are matched: the stem and four stages."""


@dataclass(frozen=True)
class Recipe:
    """The paper's choice for a network: the names of its layers, and for a class their weights and
    those of the priors (tv_l1, tv_l2, l2)."""

    layers: tuple[str, ...]
    weights: tuple[float, ...] = (1.0,) * STAGES
    priors: tuple[float, float, float] = (0.0, 0.0, 0.0)


NEURON_WEIGHTS = (0.1, 1.0, 1.0, 1.0, 0.0)
NEURON_PRIORS = (0.0, 3e-7, 3e-7)
"""The paper's for inner neurons, in every network."""

_CONVNEXT = ("features.0", "features.2.1", "features.4.1", "features.6.1", "features.7.2")
"""The convolutions that halve the resolution, and the last block."""


def _vit(*blocks: int) -> tuple[str, ...]:
    return ("conv_proj", *(f"encoder.layers.encoder_layer_{i}" for i in blocks))


_RECIPES: tuple[tuple[str, Recipe], ...] = (
    (r"(wide_)?resne(x)?t\d+.*", Recipe(("conv1", "layer1", "layer2", "layer3", "layer4"))),
    (
        r"densenet\d+",
        Recipe(
            ("features.conv0", *(f"features.denseblock{i}" for i in (1, 2, 3, 4))),
            (1.0, 1.0, 1.0, 1.0, 100.0),
        ),
    ),
    (r"convnext_base", Recipe(_CONVNEXT, (10.0, 1.0, 1.0, 1.0, 1.0))),
    (r"convnext_.*", Recipe(_CONVNEXT)),
    (r"vit_b_\d+", Recipe(_vit(0, 4, 8, 11))),
    (r"vit_l_16", Recipe(_vit(2, 9, 20, 23), priors=(0.0, 0.003, 0.003))),
    (r"vit_l_32", Recipe(_vit(2, 9, 20, 23), (1.0, 1.0, 1.0, 1.0, 0.1), (0.0, 0.0003, 0.0003))),
    (r"vit_h_14", Recipe(_vit(7, 15, 23, 31))),  # ours, as all from here on
    (
        r"efficientnet-lite0",
        Recipe(
            ("_bn0", "_blocks.2", "_blocks.4", "_blocks.10", "_blocks.15"),
            # Ours: with 1 the pictures show the class less clearly, with 100 they are noisy; the
            # total variation removes what noise is left.
            (1.0, 1.0, 1.0, 1.0, 15.0),
            (0.0, 0.03, 0.0),
        ),
    ),
    (
        r"efficientnet_.*",
        Recipe(("features.0", "features.2", "features.3", "features.5", "features.7")),
    ),
)
"""Name of a network (a regular expression) → its recipe."""


def recipe_of(name: str) -> Recipe | None:
    """The recipe of a network by name; None if its layers have to be picked."""
    return next((recipe for pattern, recipe in _RECIPES if re.fullmatch(pattern, name)), None)
