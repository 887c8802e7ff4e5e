"""Explaining by inputs that are not one image, and by values within a network."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxplain.contract.explain import DIRECTION, LOGITS, TARGET
from onnxplain.contract.objective import EXPLAINED_CLASS, OBJECTIVE, Explained
from onnxplain.contract.values import TABLE, TOKENS, Values
from onnxplain.errors import BackendError, InputError
from onnxplain.runtime.inputs.objective import as_inputs
from onnxplain.runtime.inputs.scalars import Temperatures, scalar_inputs
from onnxplain.runtime.inputs.targets import Targets, resolve, target_input
from onnxplain.runtime.inputs.values import as_values
from onnxplain.runtime.outputs import of_images
from onnxplain.runtime.pictures.figures import write_image
from onnxplain.runtime.pictures.values import Shown, page
from onnxplain.runtime.predictions import Predictions
from onnxplain.runtime.sessions import Backend

Names: TypeAlias = "Sequence[Any] | Mapping[str, Sequence[Any]]"

_SHOWN = 4
"""The most samples that a notebook shows."""


@dataclass(frozen=True, eq=False, repr=False)
class ValuesExplanation(Predictions):
    """The explanation of N samples for one target each, or for K, by one value or several.

    Attributes:
        logits: [N,classes]; of no columns where the network is no classifier.
        pullbacks: by the names of the values, of their shapes, [N,…]; [N,K,…] from a graph
            exported with --multi-target.
        targets: the explained class indices, as `Explanation` has them.
        given: what the network was given, by name.
        values: what the file says of its inputs, and of the values.
        class_names: one for each class; empty when the file has none.
        activation: what makes the logits probabilities, "softmax" or "sigmoid".
        outputs: what the network puts out, by name, and what its objective tells beside itself.
        objective: the scalar of each that is explained, [N] or [N,K]; None of a classifier.
        explained: what the file says of it.
        kind: what the pullbacks are, as the file's metadata have it: "direction", "relevance" or
            "product".
        method: by which it is explained, with its parameters.
    """

    logits: NDArray[Any]
    pullbacks: Mapping[str, NDArray[Any]]
    targets: NDArray[np.int64]
    given: Mapping[str, NDArray[Any]]
    values: Values
    class_names: tuple[str, ...] = ()
    activation: str = "softmax"
    outputs: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    objective: NDArray[Any] | None = None
    explained: Explained = field(default_factory=Explained)
    kind: str = DIRECTION
    method: str = ""

    def __len__(self) -> int:
        return len(self.logits)

    def __getitem__(self, index: int | slice) -> ValuesExplanation:
        """The explanation of one sample, as one of length 1, or of those of a slice."""
        rows = range(len(self))
        chosen = list(rows[index]) if isinstance(index, slice) else [rows[index]]
        batched = {name for name, one in self.values.inputs.items() if one.batched}
        return ValuesExplanation(
            self.logits[chosen],
            {name: pullback[chosen] for name, pullback in self.pullbacks.items()},
            self.targets[chosen],
            {name: x[chosen] if name in batched else x for name, x in self.given.items()},
            self.values,
            self.class_names,
            self.activation,
            of_images(self.explained, self.outputs, chosen),
            None if self.objective is None else self.objective[chosen],
            self.explained,
            self.kind,
            self.method,
        )

    @property
    def pullback(self) -> NDArray[Any]:
        """That of the only value.

        Raises:
            InputError: there are several.
        """
        if len(self.pullbacks) > 1:
            names = ", ".join(map(repr, self.pullbacks))
            raise InputError(f"several values are explained: .pullbacks has those of {names}")
        return next(iter(self.pullbacks.values()))

    def draw(self, names: Names = ()) -> Image.Image:
        """One picture of it all: samples, and their targets, below each other.

        An image is drawn as one; a volume as the slices through its most relevant place, and the
        greatest magnitudes along each axis; a series as a line coloured by its pullback; a row of a
        table as bars; tokens on coloured ground. What of a pullback belongs to one token or place
        is summed where the parts add up, as those of relevances and products; else its length
        counts.

        Args:
            names: of the tokens or columns: one for each of them, or a list for each sample; a
                dictionary of such, by the names of several values.

        Raises:
            InputError: there are others than as many.
        """
        return page([row for i in range(len(self)) for row in self._rows(i, names)])

    def save(self, path: str | os.PathLike[str], names: Names = ()) -> None:
        """Write what `draw` draws; the suffix of `path` decides the format.

        An existing file is replaced as a whole or not at all.

        Raises:
            InputError: names that do not fit, an unknown suffix, or a path that cannot be written.
        """
        write_image(self.draw(names), Path(path))

    def _repr_png_(self) -> bytes:
        """What a notebook shows: the first samples."""
        encoded = io.BytesIO()
        self[:_SHOWN].draw().save(encoded, "PNG")
        return encoded.getvalue()

    def _rows(self, i: int, names: Names) -> Iterator[tuple[str, list[Shown]]]:
        """A caption and the values of a sample, for each target."""
        targets = self.targets[i].reshape(-1).tolist()
        scalars = self.target_probabilities if self.objective is None else self.objective
        numbers = scalars[i].reshape(-1).tolist()
        several = self.targets.ndim > 1
        for k, (target, number) in enumerate(zip(targets, numbers, strict=True)):
            chosen = self.is_of_class or self.explained.classes
            said = self.name(target) if chosen else self.explained.name
            caption = f"{said}: {number:.1%}" if self.is_of_class else f"{said}: {number:.4g}"
            yield (
                caption,
                [
                    self._shown(name, pullback[i, k] if several else pullback[i], i, names)
                    for name, pullback in self.pullbacks.items()
                ],
            )

    def _shown(self, name: str, pullback: NDArray[Any], i: int, names: Names) -> Shown:
        one = self.values.explained[name]
        value = self.given[one.input][i] if one.input in self.given else None
        if isinstance(names, Mapping):
            names = names.get(name, ())
        own = names[i] if len(names) and not isinstance(names[0], str) else names
        if one.kind in (TOKENS, TABLE) and len(own) and len(own) != len(pullback):
            raise InputError(f"{len(own)} names for the {len(pullback)} entries of {name!r}")
        return Shown(name, one.kind, pullback, value, list(map(str, own)), self.kind != DIRECTION)

    def _explanations(self) -> list[NDArray[Any]]:
        return [*self.pullbacks.values()]


def explain_values(
    backend: Backend,
    given: Any,
    targets: Targets = None,
    temperature: Temperatures = None,
    inputs: Mapping[str, Any] = MappingProxyType({}),
) -> ValuesExplanation:
    """Explain in one run of the graph; NaN and infinity pass.

    Args:
        backend: what runs it.
        given: arrays by the names of the network's inputs, [N,…] each.
        targets, temperature, inputs: as for `Explainer.__call__`.

    Raises:
        InputError: an array, target, temperature or input of the objective that cannot be used.
        BackendError: the runtime failed.
    """
    signature = backend.signature
    metadata, explained = signature.metadata, signature.metadata.objective
    arrays = as_values(signature, given)
    samples = len(next(iter(arrays.values())))
    own = as_inputs(signature, inputs, samples)
    wanted = target_input(signature, targets, samples)
    feeds = {**arrays, **own, **scalar_inputs(signature, temperature)}
    if signature.has_target:
        feeds[TARGET] = wanted
    found = backend.run(feeds)
    pullbacks = {name: found[one.pullback] for name, one in metadata.values.explained.items()}
    logits = found[LOGITS] if explained.is_class else np.zeros((samples, 0), signature.dtype)
    for what, array in ({"logits": logits} | pullbacks).items():
        if len(array) != samples:
            raise BackendError(
                f"the graph gives {what} of the shape {list(array.shape)} for {samples} samples; "
                "it was not written by onnxplain, or is damaged"
            )
    return ValuesExplanation(
        logits=logits,
        pullbacks=pullbacks,
        targets=resolve(wanted, logits)
        if explained.is_class
        else np.asarray(found.get(EXPLAINED_CLASS, wanted), np.int64),
        given=arrays,
        values=metadata.values,
        class_names=metadata.labels,
        activation=metadata.activation,
        outputs={name: found[name] for name in signature.outputs},
        objective=found.get(OBJECTIVE),
        explained=explained,
        kind=metadata.kind,
        method=metadata.described_method,
    )
