"""Explaining by inputs that are not one image, and by values within a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.contract.explain import DIRECTION, LOGITS, TARGET
from onnxplain.contract.objective import EXPLAINED_CLASS, OBJECTIVE, Explained
from onnxplain.contract.values import Values
from onnxplain.errors import BackendError, InputError
from onnxplain.runtime.inputs.objective import as_inputs
from onnxplain.runtime.inputs.scalars import Temperatures, scalar_inputs
from onnxplain.runtime.inputs.targets import Targets, resolve, target_input
from onnxplain.runtime.inputs.values import as_values
from onnxplain.runtime.outputs import of_images
from onnxplain.runtime.predictions import Predictions
from onnxplain.runtime.sessions import Backend


@dataclass(frozen=True, eq=False)
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
    )
