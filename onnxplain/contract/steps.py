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
"""The state of an optimisation beside what is optimised: Adam's two moments (of that shape), the
gradient's magnitude summed over the steps (of the image's shape), the steps done (int64 scalar),
and the loss of each step (float [T, N]; of those to come, whatever was given)."""

LEARNING_RATES, SHIFTS, MIRRORED = "learning_rates", "shifts", "mirrored"
"""Inputs with a row for each step: float [T], int64 [T, 2] (rows down, columns right), and int64
[T], 1 for a step that sees the picture mirrored, else 0."""

STEPS = "steps"
"""The name of the open dimension T."""

WEIGHTS, PRIORS = "weights", "priors"
"""Float [L], of the layers, and float [3]: of tv_l1, tv_l2 and l2."""

CHANNEL, SPECTRUM, RENDERED = "channel", "spectrum", "rendered"
"""Int64 [N], the neuron's channel; what a Fourier-parametrised picture is optimised as, float
[N, 2, C, H, W/2+1]; and the picture itself, of the image's shape, an output of that graph."""


def quantity(index: int) -> str:
    """The output of a features graph: layer `index`'s [N, C, P]."""
    return f"quantity_{index}"


def template(index: int) -> str:
    """The input of a step graph: what the sorted quantity is to be, falling, [N, C, P]."""
    return f"template_{index}"


def importance(index: int) -> str:
    """Output and input: each channel's weight in the loss of its layer, [N, C]."""
    return f"importance_{index}"


def following(name: str) -> str:
    """The output that the next step has as its input `name`."""
    return f"next_{name}"


@dataclass(frozen=True)
class MatchedLayer:
    """A layer whose activations are matched: its name, and how many channels and positions."""

    name: str
    channels: int
    positions: int


@dataclass(frozen=True)
class StepMetadata(Entry):
    """What such a graph says of itself.

    Attributes:
        layers: matched ones, from the image on; none where an activation is maximised.
        neuron: the layer whose channel is visualised; None for a class.
        carried: outputs → the inputs that they are in the next step; empty for features.
        relevance: how the layers' relevance to a neuron is found; None for a class, and without
            layers.
        batch: how many pictures a run takes; the name of that dimension where it is open.
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
