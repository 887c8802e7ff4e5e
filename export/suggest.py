"""Suggestions for a name that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], count: int = 5) -> str:
    """The known names most like `name`, as the end of a sentence."""
    names = [other for other in known if other]
    close = difflib.get_close_matches(name, names, count, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    shown = names if len(names) <= 2 * count else [*names[: 2 * count], "…"]
    return f"there are {', '.join(shown)}" if names else "there are none"
