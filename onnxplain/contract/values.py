"""What an explain graph says of its inputs where it explains by others than one image.

Such a file has all the inputs of its network under their own names, those of its objective, and a
pullback of each value that is explained: an input, or a value within, such as the embeddings of
words. Files of one image have no such entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from onnxplain.contract.entries import listed

PICTURE, VOLUME, SERIES, TABLE, TOKENS, NUMBERS = (
    "image",
    "volume",
    "series",
    "table",
    "tokens",
    "numbers",
)
"""Kinds of values, by what they are drawn as: [N,C,H,W] or [N,H,W,C]; [N,C,D,H,W]; [N,L] and
[N,C,L]; [N,F]; whole numbers [N,T], and their embeddings [N,T,D]; anything else."""

KINDS = (PICTURE, VOLUME, SERIES, TABLE, TOKENS, NUMBERS)


@dataclass(frozen=True)
class Taken:
    """An input of the network.

    Attributes:
        kind: one of `KINDS`.
        sizes: a number for each axis, or the name of what is open; sizes of one name are equal.
        batched: whether the first axis is the batch.
    """

    kind: str
    sizes: tuple[int | str, ...] = ()
    batched: bool = True


@dataclass(frozen=True)
class ExplainedValue:
    """A value that the graph explains by.

    Attributes:
        kind: one of `KINDS`.
        pullback: the output that is its explanation, of its shape.
        input: the input that it is, or whose tokens it is the embedding of; "" for another value
            within the network.
    """

    kind: str
    pullback: str
    input: str = ""


@dataclass(frozen=True)
class Values:
    """The network's inputs, and the values that are explained, by name and in the file's order."""

    inputs: Mapping[str, Taken] = field(default_factory=dict)
    explained: Mapping[str, ExplainedValue] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.explained)

    @property
    def described(self) -> str:
        """What is explained, in words."""
        return ", ".join(
            f"{name} ({one.kind}{f' of {one.input}' if one.input not in ('', name) else ''})"
            for name, one in self.explained.items()
        )

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Self:
        """Of what JSON makes of one.

        Raises:
            TypeError, AttributeError, LookupError, ValueError: it is none.
        """
        found = cls(
            {
                name: Taken(**{**one, "sizes": listed("sizes", one["sizes"])})
                for name, one in entry.get("inputs", {}).items()
            },
            {name: ExplainedValue(**one) for name, one in entry.get("explained", {}).items()},
        )
        kinds = [one.kind for one in found.inputs.values()]
        kinds += [one.kind for one in found.explained.values()]
        if unknown := set(kinds) - set(KINDS):
            raise ValueError(f"values: a kind is {unknown.pop()!r}, must be of {', '.join(KINDS)}")
        if bool(found.inputs) != bool(found.explained):
            raise ValueError("values: there are inputs or explained values, and none of the others")
        return found
