"""What a method of explanation is, and the table of those that there are."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.contract.explain import DIRECTION, MAP, PRODUCT, RELEVANCE, AscentDefaults
from onnxplain.contract.names import check_parameters
from onnxplain.export.autodiff import Rule
from onnxplain.export.methods.placement import WEIGHTED, placed
from onnxplain.export.methods.probes import CHUNK, Probe
from onnxplain.export.operators import VJPS, Rules, by_name, row_of
from onnxplain.export.parameters import Count, Parameter
from onnxplain.export.registry import Registry

TEMPERATURE = "temperature"
"""The parameter that `relative` ones are multiplied by."""

Temperature: TypeAlias = float | ir.Value
"""What a rule takes for a temperature: a number, or one computed in the graph from that input."""


def times(op: OpBuilder | None, T: Temperature, factor: Temperature) -> Temperature:
    """T · factor; only one that is in the graph needs `op`."""
    if isinstance(factor, ir.Value):
        T, factor = factor, T
    if isinstance(T, ir.Value):
        assert op is not None
        return T if factor == 1 else op.Mul(T, factor)
    assert not isinstance(factor, ir.Value)
    return T * factor


ActivationMap: TypeAlias = Callable[[OpBuilder, ir.Value, ir.Value, tuple[int, int, int]], ir.Value]
"""`(op, A, g, (height, width, channels))`, the axes of A counted from the end → the sum over the
channels, without their axis. g may have an axis more, in front."""

AttentionMap: TypeAlias = Callable[
    [OpBuilder, ir.Value, Sequence[ir.Value], Sequence[ir.Value]], ir.Value
]
"""`(op, r, As, gs)` → [N, 1, T], how much each token counts; r [1, T] is what is read of the tokens
behind the last layer, the As are the attention of each layer [N, heads, T, T], the gs their
cotangents. What is returned and the gs may have an axis more, in front."""


@dataclass(frozen=True)
class Method:
    """A backward pass: the operators whose rule differs from the ordinary gradient.

    Attributes:
        name: what users call it.
        overrides: kind of operator, or the name of a single one → rule, laid over
            `onnxplain.export.VJPS`. A rule of a method also takes, by keyword, those of the
            method's parameters that its signature names.
        parameters: what users can set. The first is always noted in the file, the others where
            they differ from their default.
        relevance: a complete table in place of `overrides`, by which the sweep carries relevances.
        first: kind of operator, or name → rule in place of the one in `relevance`, of layers with
            weights that no other such layer comes before.
        named: name → rule in place of either, of layers with weights that are called so, or stand
            in a module that is (`onnxplain.export.methods.placement.names_of`).
        times_input: whether the result is multiplied by the image.
        activation_map: makes a map of a layer, and of the cotangent that arrives there, where the
            sweep ends.
        probe: in place of a sweep, how an activation map's channels are weighed.
        attention_map: makes one of the cotangents that arrive at all layers' attention.
        by_layer: whether what arrives at a layer's attention is not of the target's score, but of
            the score that the network's head gives that layer's own tokens.
        factors: the methods whose results are multiplied, in place of all of these; each has a
            sweep of its own over the same forward pass.
        ascent: how feature accentuation ascends along it, unless told otherwise.
        help: what it is good for, in a line.
        needs: what a network must have for it; empty where any will do.
        source: where it was published.
        forwards: what an explanation costs, the forward pass included, in forward passes of a
            network of convolutions; what a probe costs, besides.
        aliases: what else it is called; spelling does not count.

    Raises:
        ValueError: no name, two parameters of one name, or one that refers to a temperature that
            the method does not have.
    """

    name: str
    overrides: Rules = field(default_factory=dict)
    parameters: tuple[Parameter, ...] = ()
    relevance: Rules | None = None
    first: Rules = field(default_factory=dict)
    named: Mapping[str, Rule] = field(default_factory=dict)
    times_input: bool = False
    activation_map: ActivationMap | None = None
    probe: Probe | None = None
    attention_map: AttentionMap | None = None
    by_layer: bool = False
    factors: tuple[Method, ...] = ()
    ascent: AscentDefaults = field(default_factory=AscentDefaults)
    help: str = ""
    needs: str = ""
    source: str = ""
    forwards: float = 2
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [parameter.name for parameter in self.parameters]
        if not self.name.isprintable() or not self.name.strip():
            raise ValueError(f"{self.name!r} cannot be a method's name")
        if len(set(names)) < len(names):
            raise ValueError(f"method {self.name!r} has two parameters of one name")
        needs = [p.name for p in self.parameters if p.relative or p.default is None]
        if needs and TEMPERATURE not in names:
            raise ValueError(f"method {self.name!r} has no temperature, which {needs[0]} refers to")

    @property
    def own(self) -> tuple[Parameter | Count, ...]:
        """All that users can set."""
        probes = any(part.probe is not None for part in self.parts)
        return (*self.parameters, CHUNK) if probes else self.parameters

    @property
    def cost(self) -> str:
        """In forward passes, in words."""
        probes = [part.probe for part in self.parts if part.probe is not None]
        return f"{self.forwards:g}" + "".join(f" + {one.cost} per channel" for one in probes)

    @property
    def has_temperature(self) -> bool:
        return any(parameter.name == TEMPERATURE for parameter in self.parameters)

    @property
    def parts(self) -> tuple[Method, ...]:
        """The methods that sweep: its factors, or itself."""
        return self.factors or (self,)

    @property
    def makes_maps(self) -> bool:
        """Whether a sweep of it ends at layers."""
        return any(part.activation_map is not None for part in self.parts)

    @property
    def attends(self) -> bool:
        """Whether a sweep of it ends at all layers' attention."""
        return any(part.attention_map is not None for part in self.parts)

    @property
    def kind(self) -> str:
        """What the result is: one of the kinds of `onnxplain.contract.explain`. A map times
        something is that, here more and there less."""
        if self.factors and not self.times_input:
            kinds = [part.kind for part in self.factors if part.kind != MAP] or [MAP]
            return kinds[0] if len(kinds) == 1 else PRODUCT
        if self.activation_map is not None or self.attention_map is not None:
            return MAP
        if self.relevance is not None:
            return RELEVANCE
        return PRODUCT if self.times_input else DIRECTION

    def values(self, given: Mapping[str, float]) -> dict[str, float | None]:
        """The value of every parameter: the one given, or its default.

        Raises:
            SourceError: there is no such parameter, or a value is out of its range.
        """
        self.check_known(given)
        return {
            parameter.name: parameter.checked(given[parameter.name])
            if parameter.name in given
            else parameter.default
            for parameter in self.own
        }

    def check_known(self, names: Iterable[str]) -> None:
        """Raise SourceError if one is the name of no parameter."""
        check_parameters(self.name, names, [parameter.name for parameter in self.own])

    def noted(
        self, values: Mapping[str, float | None], live: Collection[str] = ()
    ) -> dict[str, float | None]:
        """Those of the values that the file names: of what is `live`, where it starts from."""
        found = {
            own.name: values[own.name]
            for i, own in enumerate(self.own)
            if (i == 0 and own is not CHUNK) or values[own.name] != own.default or own.name in live
        }
        default = values.get(TEMPERATURE)
        return {name: default if value is None else value for name, value in found.items()}

    def rules(
        self,
        values: Mapping[str, Temperature | None] | None = None,
        op: OpBuilder | None = None,
        pixels: Any = None,
        roots: Collection[ir.Value] = (),
    ) -> dict[str, Rule]:
        """The whole table that the sweep uses, with the parameters' values (or defaults) in place.

        One in the graph needs the graph's builder, to be multiplied. A rule may take `pixels` too,
        the bounds of an image's (`onnxplain.export.methods.weighted.Pixels`), None of other values.
        The first layers are those behind the roots, or the graph's inputs.
        """
        given: dict[str, Any] = {p.name: p.default for p in self.parameters} | dict(values or {})
        T: Any = given.get(TEMPERATURE)
        for parameter in self.parameters:
            if given[parameter.name] is None:
                given[parameter.name] = T
            elif parameter.relative:
                given[parameter.name] = times(op, T, given[parameter.name])
        given["pixels"] = pixels

        def bound(rules: Mapping[str, Rule]) -> dict[str, Rule]:
            return {name: _bound(rule, given) for name, rule in rules.items()}

        if self.relevance is None:
            return {**VJPS, **bound(by_name(self.overrides))}
        first, named = bound(by_name(self.first)), bound(self.named)
        return {
            name: placed(
                rule, first.get(name), named if row_of(name).kind in WEIGHTED else {}, roots
            )
            for name, rule in bound(by_name(self.relevance)).items()
        }


def _bound(rule: Rule, values: Mapping[str, Any]) -> Rule:
    taken = inspect.signature(rule).parameters.keys() & values.keys()
    return partial(rule, **{name: values[name] for name in taken}) if taken else rule


METHODS: Registry[Method] = Registry("method")
"""Name → method."""

register_method = METHODS.register
