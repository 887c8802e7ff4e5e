"""Text that comes from files, made safe to show: it moves no cursor and hides nothing."""

from __future__ import annotations

import re
import unicodedata
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
