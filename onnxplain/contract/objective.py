"""What an explain graph says of what it explains, where that is no classifier's logit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from onnxplain.contract.entries import listed

CLASS = "class"
"""The objective of a file that has no entry: a classifier's, with the output `logits`."""

OBJECTIVE = "objective"
"""The output [N], or [N,K] for several targets: the scalar of each sample that is explained."""

EXPLAINED_CLASS, EXPLAINED_BOX = "explained_class", "explained_box"
"""Outputs of objectives that choose a class, int64 [N] or [N,K], or a box, [N,4] or [N,K,4]: left,
top, right and bottom in pixels of the network's input."""

NO_CLASS = -1
"""What `explained_class` is where no one class is explained; `Explained.no_class` says why."""

SEED = "objective_seed"
"""In files: the ones from which the backward pass starts, which a conversion to half precision
scales."""


INDEX, NUMBERS, MASK, BOX, CHANNELS = "index", "numbers", "mask", "box", "channels"
"""What an input of an objective is: an int64; floats; a float for each place of an output's map, 0
outside the region; a box, as `explained_box` is; or a float for each channel of a layer, for which
a caller may also give the indices of those that are 1."""

CONCEPTS, CONCEPT_RELEVANCE = "concepts", "concept_relevance"
"""The input [N,C] of a file that explains under the condition of a layer's channels, and the output
[N,C], or [N,K,C] for several targets: the relevance of each, before the condition."""


@dataclass(frozen=True)
class ObjectiveInput:
    """An input that an objective has besides the image.

    Attributes:
        meaning: what it is, in a few words.
        shape: behind the batch, [] for one number per sample.
        default: the number that stands for "as the objective chooses"; None where one must be
            given.
        kind: one of those above.
        limit: of an index, how many there are to choose from; from -1 up to that many are allowed.
        nonzero: whether one that is given may not be all 0.
    """

    meaning: str
    shape: tuple[int, ...] = ()
    default: float | None = None
    kind: str = NUMBERS
    limit: int | None = None
    nonzero: bool = False


@dataclass(frozen=True)
class Explained:
    """What a file explains.

    Attributes:
        name: the objective.
        why: how it came to that, in words.
        axes: the network's outputs → what their axes are ("batch", "class", "height", …), "" where
            the objective does not read them; none is the batch where nothing shows which.
        inputs: what it takes besides the image, by name.
        classes: how many classes a `target` chooses from; 0 where it chooses no class.
        ranks: how far a negative target counts from the top.
        activation: what makes the explained values probabilities, "softmax", "sigmoid" or "".
        no_class: what is explained where `explained_class` is `NO_CLASS`, in words.
        settings: what was chosen at export.
    """

    name: str = CLASS
    why: str = ""
    axes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    inputs: Mapping[str, ObjectiveInput] = field(default_factory=dict)
    classes: int = 0
    ranks: int = 0
    activation: str = ""
    no_class: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_class(self) -> bool:
        return self.name == CLASS

    def batch_axis(self, output: str) -> int | None:
        """Where an output of the graph has its images; None where that is not known."""
        axes = list(self.axes.get(output, ["batch"]))
        return axes.index("batch") if "batch" in axes else None

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Self:
        """Of what JSON makes of one.

        Raises:
            TypeError, AttributeError, ValueError: it is none.
        """
        inputs = {
            name: ObjectiveInput(**{**given, "shape": listed("shape", given["shape"])})
            for name, given in entry.get("inputs", {}).items()
        }
        return cls(**{**entry, "inputs": inputs})
