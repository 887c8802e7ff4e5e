"""Text that comes from files, made safe to show: it moves no cursor and hides nothing."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

_BEYOND_ASCII = re.compile("[^ -~\t\n]")
_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's categories of controls, of what reorders, joins or hides text, of half characters, and
of ends of lines and paragraphs."""


def printable(text: str) -> str:
    r"""The text with control characters as Python writes them: `\x1b[2J`."""
    return _BEYOND_ASCII.sub(lambda found: _spelled(found[0]), text)


def _spelled(character: str) -> str:
    if unicodedata.category(character) not in _UNSEEN:
        return character
    return character.encode("unicode_escape").decode("ascii")


def one_line(name: str) -> str:
    r"""The same of a name, which has no lines: `\n` where it says that it has."""
    return printable(name).replace("\n", "\\n")


def in_lines(entry: Any) -> Any:
    """What JSON holds, each of its strings `one_line`."""
    match entry:
        case str():
            return one_line(entry)
        case list():
            return [in_lines(one) for one in entry]
        case dict():
            return {one_line(name): in_lines(one) for name, one in entry.items()}
    return entry


_SHOWN = 3  # entries of what has many
_CHARACTERS = 60  # of a text


class Brief:
    """A dataclass that Python shows in a few lines, whatever arrays it holds."""

    def __repr__(self) -> str:
        fields: Any = dataclasses.fields(self)  # type: ignore[arg-type]
        shown = (f"{one.name}={brief(getattr(self, one.name))}" for one in fields)
        return f"{type(self).__name__}({', '.join(shown)})"


def brief(value: Any) -> str:
    """A value in a few words: of an array or tensor its type and shape, of many the first three."""
    if hasattr(value, "shape") and hasattr(value, "dtype") and len(value.shape):
        return f"{str(value.dtype).rpartition('.')[2]} {list(value.shape)}"
    if isinstance(value, Mapping):
        return f"{{{_first([f'{name!r}: {brief(one)}' for name, one in value.items()])}}}"
    if isinstance(value, list | tuple):
        return f"[{_first([brief(one) for one in value])}]"
    text = printable(repr(value))
    return text if len(text) <= _CHARACTERS else f"{text[:_CHARACTERS]} …"


def _first(texts: list[str]) -> str:
    more = f", … {len(texts)} in all" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more
