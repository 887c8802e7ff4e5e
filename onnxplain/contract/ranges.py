"""The domains of parameters: numbers, whole numbers and words.

Each says whether a value is `in` it, and, as a string, which values are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypeAlias

LEAST, GREATEST = 2.0**-126, (2 - 2.0**-23) * 2.0**127  # of float32's normal numbers


@dataclass(frozen=True)
class Range:
    """Numbers, none that is infinite in float32, or less than its least normal number, whose
    reciprocal may be.

    `closed` says whether `low` and `high` themselves are allowed.
    """

    low: float = 0.0
    high: float = math.inf
    closed: bool = False

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, Real) or isinstance(value, bool):
            return False
        try:
            number = float(value)
        except OverflowError:
            return False
        if not (number == 0 or LEAST <= abs(number) <= GREATEST):
            return False
        return self.low <= number <= self.high if self.closed else self.low < number < self.high

    def refusal(self, value: object) -> str:
        """What to say of a value that is none of them: "must be a positive number, not -1"."""
        said = f"must be {self}, not {value!r}"
        size: Any = abs(value) if isinstance(value, Real) else 0
        if 0 < size < LEAST or GREATEST < size < math.inf:
            said += f"; float32 holds those from {LEAST:.2g} to {GREATEST:.2g}"
        return said

    def __str__(self) -> str:
        if self == Range():
            return "a positive number"
        left, right = "[]" if self.closed else "()"
        return f"a finite number in {left}{self.low:g}, {self.high:g}{right}"


@dataclass(frozen=True)
class Whole:
    """Whole numbers from `low` to `high`."""

    low: int = 1
    high: int = 10_000

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        return value == value // 1 and self.low <= value <= self.high

    def refusal(self, value: object) -> str:
        """As a range's."""
        return f"must be {self}, not {value!r}"

    def __str__(self) -> str:
        return f"a whole number from {self.low} to {self.high}"


@dataclass(frozen=True)
class Words:
    """One of a few words, or `several`, each once, with commas between."""

    choices: tuple[str, ...]
    several: bool = False

    def __contains__(self, value: object) -> bool:
        words = self.split(value)
        return all(word in self.choices for word in words) and len(set(words)) == len(words)

    def split(self, value: object) -> list[Any]:
        """The words that a value gives."""
        return [word.strip() for word in str(value).split(",")] if self.several else [value]

    def refusal(self, value: object) -> str:
        """As a range's."""
        return f"must be {self}, not {value!r}"

    def __str__(self) -> str:
        several = "; or several, with commas between" if self.several else ""
        return f"one of {', '.join(self.choices)}{several}"


Domain: TypeAlias = Range | Whole | Words
