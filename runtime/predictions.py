"""What a network says of classes, beside an explanation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.contract.objective import Explained
from onnxplain.errors import InputError
from onnxplain.options import check_type
from onnxplain.printable import brief, printable

_SHOWN = 3  # samples of an explanation that Python shows


class Predictions:
    """Names and probabilities of classes, of an explanation with these attributes:

    Attributes:
        logits: [N,classes]; of no columns where the network is no classifier.
        targets: the explained class indices, int64 [N] or [N,K].
        class_names: one for each class; empty when the file has none.
        activation: what makes the logits probabilities, "softmax" or "sigmoid".
        objective: the scalar of each that is explained, [N] or [N,K]; None of a classifier.
        explained: what the file says of it.
        method: by which it is explained, with its parameters.
    """

    logits: NDArray[Any]
    targets: NDArray[np.int64]
    class_names: tuple[str, ...]
    activation: str
    objective: NDArray[Any] | None
    explained: Explained
    method: str

    def __repr__(self) -> str:
        """How many, what is explained and predicted of the first, and the pullbacks' shapes."""
        some = slice(_SHOWN)
        more = ", …" if len(self.targets) > _SHOWN else ""
        said = [f"targets {', '.join(str(one) for one in self.names[some])}{more}"]
        if self.is_of_class:
            rows = probabilities_of(self.logits[some], self.activation)
            best = [f"{self.name(row.argmax())} {row.max():.1%}" for row in rows]
            said.append(f"predicted {', '.join(best)}{more}")
        else:
            said.append(f"objective {self.explained.name}")
        said += [f"pullback {brief(one)}" for one in self._explanations()]
        said += [self.method] if self.method else []
        return f"<{type(self).__name__}: {printable('; '.join(said))}>"

    @property
    def is_of_class(self) -> bool:
        """Whether a classifier's logit is explained."""
        return self.objective is None

    def require_finite(self) -> None:
        """
        Raises:
            InputError: a logit, an objective or an element of a pullback is NaN or infinite.
        """
        if (found := self.nonfinite()) is not None:
            image, what = found
            which = "" if len(self.logits) == 1 else f" of image {image}"
            raise InputError(
                f"the network's {what}{which} are not finite: its weights are damaged, or its "
                "values too large for this precision (allow_nonfinite=True passes them on)"
            )

    def nonfinite(self) -> tuple[int, str] | None:
        """The first sample of which something is NaN or infinite, and what that is."""
        for what, finite in self._finite().items():
            if not finite.all():
                return int(np.flatnonzero(~finite)[0]), what
        return None

    def finite(self) -> NDArray[np.bool_]:
        """Of which samples everything is, [N]."""
        return np.logical_and.reduce([*self._finite().values()])

    def _finite(self) -> dict[str, NDArray[np.bool_]]:
        scalars = self.logits if self.objective is None else self.objective
        of_scalars = {"logits" if self.objective is None else "objective": rows_finite(scalars)}
        of_pullbacks = [rows_finite(pullback) for pullback in self._explanations()]
        return {**of_scalars, "pullback's numbers": np.logical_and.reduce(of_pullbacks)}

    def _explanations(self) -> Sequence[NDArray[Any]]:
        """The pullbacks."""
        raise NotImplementedError

    @property
    def probabilities(self) -> NDArray[Any]:
        """Softmax of the logits, or their sigmoid where the network ends in one, [N,classes]."""
        return probabilities_of(self._class_logits, self.activation)

    @property
    def _class_logits(self) -> NDArray[Any]:
        if not self.is_of_class:
            raise InputError(
                f"the network is no classifier: objective {self.explained.name!r} has .outputs and "
                ".objective, and no probabilities of classes"
            )
        return self.logits

    @property
    def target_probabilities(self) -> NDArray[Any]:
        """The targets' probabilities, [N] or [N,K]."""
        return self._of_targets(self.probabilities)

    @property
    def target_logits(self) -> NDArray[Any]:
        """The targets' logits, [N] or [N,K]."""
        return self._of_targets(self._class_logits)

    def _of_targets(self, per_class: NDArray[Any]) -> NDArray[Any]:
        columns = self.targets.reshape(len(self.targets), -1)
        return np.take_along_axis(per_class, columns, axis=1).reshape(self.targets.shape)

    @property
    def names(self) -> list[Any]:
        """The targets' class names, a list [N] or [N,K]; the index where the file has no name."""
        return [
            self.name(row) if row.ndim == 0 else [self.name(target) for target in row]
            for row in self.targets
        ]

    def labels(self, k: int = 5) -> list[list[tuple[str, float]]]:
        """For each sample the `k` likeliest classes as (name, probability), the likeliest first.

        Raises:
            InputError: `k` is no whole number, or below 1.
        """
        check_type("k", k, int)
        if k < 1:
            raise InputError(f"labels of at least one class, not of {k}")
        probabilities = self.probabilities
        ranking = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
        return [
            [(self.name(index), float(row[index])) for index in order]
            for row, order in zip(probabilities, ranking, strict=True)
        ]

    def name(self, index: int) -> str:
        """A class's name; its index where the file has none; what -1 stands for."""
        if index < 0:
            return self.explained.no_class
        return self.class_names[index] if index < len(self.class_names) else str(index)


def rows_finite(array: NDArray[Any]) -> NDArray[np.bool_]:
    """Of which entries along the first axis everything is finite."""
    finite: NDArray[np.bool_] = np.isfinite(array.reshape(len(array), -1)).all(axis=1)
    return finite


def probabilities_of(logits: NDArray[Any], activation: str) -> NDArray[Any]:
    """The classes' probabilities, [N, classes], by what the network ends in: softmax or sigmoid."""
    if activation == "sigmoid":
        independent: NDArray[Any] = 0.5 * (1 + np.tanh(0.5 * logits))
        return independent
    powers: NDArray[Any] = np.exp(logits - logits.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers
