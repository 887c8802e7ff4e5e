"""What the graphs of a feature visualisation carry, which `onnxplain.vital.graphs` writes.

Beside the entries of `onnxplain.contract.explain.Metadata`, as JSON under one key of the file's
`metadata_props`, so that a runtime needs the file alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from onnxplain.contract.entries import Entry

FIRST_MOMENT, SECOND_MOMENT, MAGNITUDE, STEP, LOSSES = (
    "first_moment",
    "second_moment",
    "magnitude",
    "step",
    "losses",
)
"""The state of an optimisation besides what is optimised: Adam's two moments (of the same shape),
the gradient's magnitude summed over the steps (of the image's shape), the steps done (int64
scalar), and the loss of each step (float [T, N]; entries for later steps stay as given)."""

LEARNING_RATES, SHIFTS, MIRRORED = "learning_rates", "shifts", "mirrored"
"""Inputs with a row per step: float [T]; int64 [T, 2], rows down and columns right; and int64 [T],
1 for a step that sees the picture mirrored and 0 otherwise."""

STEPS = "steps"
"""The name of the open dimension T."""

WEIGHTS, PRIORS = "weights", "priors"
"""The layers' weights, float [L], and those of tv_l1, tv_l2 and l2, float [3]."""

CHANNEL, SPECTRUM, RENDERED = "channel", "spectrum", "rendered"
"""The neuron's channel, int64 [N]; the spectrum as which a Fourier-parametrised picture is
optimised, float [N, 2, C, H, W/2+1]; and, an output of that graph, its picture, of the image's
shape."""


def quantity(index: int) -> str:
    """The output of a features graph: layer `index`'s [N, C, P]."""
    return f"quantity_{index}"


def template(index: int) -> str:
    """The input of a step graph: what the quantity should be, in descending order, [N, C, P]."""
    return f"template_{index}"


def importance(index: int) -> str:
    """An output of features graphs and an input of step graphs: each channel's weight, [N, C]."""
    return f"importance_{index}"


def following(name: str) -> str:
    """The output that becomes the next step's input `name`."""
    return f"next_{name}"


@dataclass(frozen=True)
class MatchedLayer:
    """A layer whose activations are matched: its name, its channels and its positions."""

    name: str
    channels: int
    positions: int


@dataclass(frozen=True)
class StepMetadata(Entry):
    """What such a graph says about itself.

    Attributes:
        layers: the matched ones, in order from the image on; none if an activation is maximised.
        neuron: the layer whose channel is visualised; None for a class.
        carried: output → the input that it becomes in the next step; empty for a features graph.
        relevance: how the layers' relevance to a neuron is found; None for a class, or without
            layers.
        batch: how many pictures a run takes, or the name of that dimension if it is open.
    """

    KEY = "onnxplain.step"
    KIND = "graph of a feature visualisation"

    layers: tuple[MatchedLayer, ...]
    neuron: str | None
    carried: Mapping[str, str]
    relevance: str | None
    batch: int | str

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Self:
        layers = tuple(MatchedLayer(**layer) for layer in entry["layers"])
        return cls(**{**entry, "layers": layers})
