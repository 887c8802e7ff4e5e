"""Text that comes from files, made safe to show: it moves no cursor and hides nothing."""

from __future__ import annotations

import re

_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but for tabs and ends of lines, and C1: escape sequences
    "\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"  # what reorders text; half characters
)


def printable(text: str) -> str:
    r"""The text with control characters as Python writes them: `\x1b[2J`."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)
