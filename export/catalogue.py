"""All that an explanation can be composed of, as a table: made of what is declared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from onnxplain.errors import SourceError
from onnxplain.export.estimators import ESTIMATORS
from onnxplain.export.estimators.estimator import Own
from onnxplain.export.methods import METHODS
from onnxplain.export.methods.layer_rules import RULES
from onnxplain.export.objectives import OBJECTIVES
from onnxplain.suggest import called, nearest


class Entry(NamedTuple):
    """A method, a rule of its layers, an estimator or an objective.

    Attributes:
        kind: which of the four.
        name: what users call it.
        forwards: the cost in forward passes, the one forward included: of an estimator by default,
            over a method that costs 2; empty of a rule and of an objective.
        needs: of a network, or as inputs of the file.
        good_for: in a line.
        source: where it was published.
    """

    kind: str
    name: str
    forwards: str
    needs: str
    good_for: str
    source: str


COLUMNS = ("", "name", "cost in forwards", "needs", "good for", "source")


def catalogue() -> Iterator[Entry]:
    """Every one that is registered, methods first."""
    for method in METHODS.values():
        yield Entry("method", method.name, method.cost, method.needs, method.help, method.source)
    for rule in RULES.values():
        yield Entry("rule", rule.name, "", rule.needs, rule.help, rule.source)
    for estimator in ESTIMATORS.values():
        values = estimator.values({})
        inputs = ", ".join(estimator.inputs(values))
        forwards = f"{2 * estimator.explanations(values):g}"
        yield Entry("estimator", estimator.name, forwards, inputs, estimator.help, estimator.source)
    for objective in OBJECTIVES.values():
        inputs = ", ".join(one.name for one in objective.inputs)
        yield Entry("objective", objective.name, "", inputs, objective.help, "")


def entry_called(name: str) -> Entry:
    """The one that is called so, or also called so, however that is spelled.

    Raises:
        SourceError: there is none.
    """
    entries = {entry.name: entry for entry in catalogue()}
    if name in entries:  # before spellings: the rule z-plus is not the method zplus
        return entries[name]
    own = (
        called(name, METHODS)
        or called(name, RULES)
        or called(name, ESTIMATORS)
        or called(name, OBJECTIVES)
    )
    if own is None:
        raise SourceError(
            f"no method, rule, estimator or objective {name!r}; {nearest(name, entries)}"
        )
    return entries[own]


def parameters_of(entry: Entry) -> list[tuple[str, str, str, str]]:
    """What can be set of one: its name, default, what it may be, and what it is."""
    name = entry.name
    if entry.kind == "objective":
        return [
            (one.name, "", " or ".join(one.choices) or "a whole number above 0", one.help)
            for one in OBJECTIVES[name].settings
        ]
    settable: dict[str, Callable[[], Sequence[Own]]] = {
        "method": lambda: METHODS[name].own,
        "rule": lambda: RULES[name].parameters,
        "estimator": lambda: ESTIMATORS[name].own,
    }
    return [
        (
            one.name,
            "the temperature" if one.default is None else f"{one.default}",
            str(one.range),
            one.help,
        )
        for one in settable[entry.kind]()
    ]


def as_markdown(entries: Iterator[Entry]) -> str:
    """The same as a table in a page."""
    rows = [COLUMNS, ["---"] * len(COLUMNS)]
    rows += [(kind, f"`{name}`", *others) for kind, name, *others in entries]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
