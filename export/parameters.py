"""What users can set: numbers, counts and words, each with its default, its range and its help."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from onnxplain.contract.ranges import Range, Whole, Words
from onnxplain.errors import SourceError

_TAKEN = ("op", "node", "g", "layer", "pixels", "rules")
"""What rules and metadata call something else."""


@dataclass(frozen=True)
class Parameter:
    """A number that a method's rules take, as the keyword of its name.

    Attributes:
        name: what rules, Python and `--param` call it.
        default: where none is given; None for the value of the method's `temperature`.
        help: what it is, in a few words.
        low, high: the range of values; infinite ones are never allowed.
        closed: whether `low` and `high` themselves are allowed.
        relative: whether the rules take it times the method's `temperature`.

    Raises:
        ValueError: a name that rules cannot have as a keyword, or a default out of the range.
    """

    name: str
    default: float | None
    help: str
    low: float = 0.0
    high: float = math.inf
    closed: bool = False
    relative: bool = False

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or self.name in _TAKEN:
            raise ValueError(f"{self.name!r} cannot be a parameter's name")
        if self.default is not None:
            try:
                self.checked(self.default)
            except SourceError as error:
                raise ValueError(f"the default: {error}") from error

    def checked(self, value: float) -> float:
        """The value.

        Raises:
            SourceError: it is not a number within the range.
        """
        if value not in self.range:
            raise SourceError(f"{self.name} {self.range.refusal(value)}")
        return float(value)

    @property
    def range(self) -> Range:
        """The allowed values."""
        return Range(self.low, self.high, self.closed)


@dataclass(frozen=True)
class Count:
    """A whole number that a method or an estimator takes.

    Attributes:
        name: what Python and `--param` call it.
        default: where none is given.
        help: what it is, in a few words.
        low, high: the least and the greatest allowed.
    """

    name: str
    default: int
    help: str
    low: int = 1
    high: int = 10_000

    def checked(self, value: Any) -> int:
        """
        Raises:
            SourceError: it is no whole number within the range.
        """
        if value not in self.range:
            raise SourceError(f"{self.name} {self.range.refusal(value)}")
        return int(value)

    @property
    def range(self) -> Whole:
        """The allowed values."""
        return Whole(self.low, self.high)


@dataclass(frozen=True)
class Choice:
    """One of a few words that an estimator takes, or `several`; the first is the default."""

    name: str
    choices: tuple[str, ...]
    help: str
    several: bool = False

    @property
    def default(self) -> str:
        return self.choices[0]

    def checked(self, value: Any) -> str:
        """
        Raises:
            SourceError: it is none of the choices.
        """
        if value not in self.range:
            raise SourceError(f"{self.name} {self.range.refusal(value)}")
        return ",".join(self.range.split(value))

    @property
    def range(self) -> Words:
        """The allowed values."""
        return Words(self.choices, self.several)
