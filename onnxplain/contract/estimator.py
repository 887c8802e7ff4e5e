"""What an explain graph says of its estimator: at which inputs its rule is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

CONVERGENCE_DELTA = "convergence_delta"
"""The output [N], or [N,K] for several targets: by how much the sum of the attributions misses the
difference of the objective between the image and the baseline."""

BASELINE, BASELINES = "baseline", "baselines"
"""Inputs of estimators that are told where to begin: an image for each, or a set for all."""


@dataclass(frozen=True)
class EstimatorInput:
    """Images that an estimator takes besides the one that is explained, as the network sees them.

    Attributes:
        meaning: what they are, in a few words.
        several: whether they are a set [B, …], the same for every image; else there is one for
            each, [N, …].
    """

    meaning: str
    several: bool = False


@dataclass(frozen=True)
class Estimated:
    """How a file's explanation is put together.

    Attributes:
        name: the estimator; empty where the rule is asked at the image alone.
        parameters: its own, numbers and names.
        inputs: what it takes besides, by name.
        outputs: what it tells besides the explanation, by name, in words.
        explanations: how many explanations one costs.
    """

    name: str = ""
    parameters: Mapping[str, float | str] = field(default_factory=dict)
    inputs: Mapping[str, EstimatorInput] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    explanations: float = 1

    @property
    def described(self) -> str:
        """The estimator and its parameters: "smoothgrad, samples 25, sigma 0.15"."""
        values = {k: v if isinstance(v, str) else f"{v:g}" for k, v in self.parameters.items()}
        return ", ".join([self.name, *(f"{name} {value}" for name, value in values.items())])

    @property
    def takes_sets(self) -> bool:
        """Whether an input is a set of images, the same for every image that is explained."""
        return any(one.several for one in self.inputs.values())

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Self:
        """Of what JSON makes of one.

        Raises:
            TypeError, AttributeError: it is none.
        """
        inputs = {name: EstimatorInput(**given) for name, given in entry.get("inputs", {}).items()}
        return cls(**{**entry, "inputs": inputs})
