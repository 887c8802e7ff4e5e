"""What an estimator is, and the table of those that there are.

A rule says how a cotangent passes an operator; an estimator says at which inputs the rule is asked,
and how the answers are put together. Each goes with every rule and every objective.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import onnx_ir as ir

from onnxplain.contract.estimator import Estimated, EstimatorInput
from onnxplain.errors import SourceError
from onnxplain.export.estimators.asked import Asked
from onnxplain.export.parameters import Choice, Count, Parameter
from onnxplain.export.registry import Registry

Own: TypeAlias = Parameter | Count | Choice
Sampling: TypeAlias = Mapping[str, Any]
Emission: TypeAlias = Callable[[Asked, Sampling], tuple[ir.Value, Mapping[str, ir.Value]]]
"""`emit(asked, values)`: the explanation, of the pullback's shape, and its other outputs."""

CHUNK = Count("chunk", 1, "the most samples that are explained at once, as one batch")


@dataclass(frozen=True)
class Estimator:
    """At which inputs a rule is asked, and how the answers are put together.

    Attributes:
        name: what users call it.
        help: what it is good for, in a line.
        formula: with g(x) for the rule's explanation of an image x.
        source: where it was published.
        emit: emits it.
        explanations: how many explanations it costs, by its parameters' values; the image's own
            forward pass, which says what is explained, is half a one.
        kinds: the kind of a method's explanation → that of what is made of it, as in
            `onnxplain.contract.explain`; it goes with no other kind.
        parameters: what users can set, `chunk` besides.
        inputs: what the graph takes for it, by its parameters' values.
        outputs: what it tells besides the explanation, in words.
        aliases: what else it is called; spelling does not count.

    Raises:
        ValueError: no name, or two parameters of one name.
    """

    name: str
    help: str
    formula: str
    source: str
    emit: Emission
    explanations: Callable[[Sampling], float]
    kinds: Mapping[str, str]
    parameters: tuple[Own, ...] = ()
    inputs: Callable[[Sampling], Mapping[str, EstimatorInput]] = lambda values: {}
    outputs: Mapping[str, str] | None = None
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [parameter.name for parameter in self.own]
        if not self.name.isprintable() or not self.name.strip():
            raise ValueError(f"{self.name!r} cannot be an estimator's name")
        if len(set(names)) < len(names):
            raise ValueError(f"estimator {self.name!r} has two parameters of one name")

    @property
    def own(self) -> tuple[Own, ...]:
        """All that users can set."""
        return (*self.parameters, CHUNK)

    def values(self, given: Sampling) -> dict[str, Any]:
        """The value of every parameter: the one given, or its default.

        Raises:
            SourceError: there is no such parameter, or a value is out of its range.
        """
        known = [parameter.name for parameter in self.own]
        for name in given:
            if name not in known:
                raise SourceError(
                    f"estimator {self.name!r} has no {name}; it has {', '.join(known)}"
                )
        return {one.name: one.checked(given.get(one.name, one.default)) for one in self.own}

    def described(self, values: Sampling) -> Estimated:
        """What the file says of it."""
        return Estimated(
            self.name,
            dict(values),
            dict(self.inputs(values)),
            dict(self.outputs or {}),
            self.explanations(values),
        )


def nothing_else(explanation: ir.Value) -> tuple[ir.Value, Mapping[str, ir.Value]]:
    """What an emission returns that has no other outputs."""
    return explanation, {}


ESTIMATORS: Registry[Estimator] = Registry("estimator")
"""Name → estimator."""

register_estimator, get_estimator = ESTIMATORS.register, ESTIMATORS.named
