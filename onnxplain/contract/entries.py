"""A dataclass as one JSON entry of an ONNX file's `metadata_props`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from onnxplain.errors import BackendError
from onnxplain.options import check_fields
from onnxplain.printable import in_lines

DAMAGED = ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError
"""What reading an entry raises where it is not as it was written."""


@dataclass(frozen=True)
class Entry:
    """What graphs of one kind say about themselves.

    Attributes:
        KEY: the entry's.
        KIND: what a file with that entry is, for messages: "graph of a layer's channels".
    """

    KEY: ClassVar[str]
    KIND: ClassVar[str]

    def to_props(self) -> dict[str, str]:
        """As `metadata_props`."""
        return {self.KEY: json.dumps(dataclasses.asdict(self))}

    @classmethod
    def from_props(cls, props: Mapping[str, str]) -> Self:
        """Read it back.

        Raises:
            BackendError: the file has no such entry, or a damaged one.
        """
        found = cls.find(props)
        if found is None:
            raise BackendError(f"this ONNX file is not a {cls.KIND}")
        return found

    @classmethod
    def find(cls, props: Mapping[str, str]) -> Self | None:
        """The same; None if the file has no such entry.

        Raises:
            BackendError: the entry is damaged.
        """
        if cls.KEY not in props:
            return None
        try:
            found = cls.from_json(in_lines(json.loads(props[cls.KEY])))
            check_fields(found)
            return found
        except DAMAGED as error:
            raise BackendError(
                f"the file's entry {cls.KEY} cannot be read ({described(error)}); export it again "
                "with the installed version"
            ) from error

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Self:
        """From what `dataclasses.asdict` becomes in JSON, where tuples are lists."""
        return cls(**entry)


def listed(name: str, entry: Any) -> tuple[Any, ...]:
    """What is a list in JSON.

    Raises:
        ValueError: it is none, such as a string, which has parts too.
    """
    if not isinstance(entry, list):
        raise ValueError(f"{name} is no list")
    return tuple(entry)


def described(error: Exception) -> str:
    """What is wrong with an entry, in its own words where it has some."""
    return str(error) if isinstance(error, ValueError) else repr(error)
