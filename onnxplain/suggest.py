"""What is meant by a name that does not exist as it is spelled."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Protocol, TypeVar


class Aliased(Protocol):
    """What has other names."""

    @property
    def aliases(self) -> tuple[str, ...]: ...


Entry = TypeVar("Entry", bound=Aliased)


def squeezed(name: str) -> str:
    """What all spellings of a name have in common: `EfficientNet_Lite0` and `efficientnet-lite0`.

    Capitals do not count, nor do hyphens, underscores and spaces, but for those between digits:
    `regnet_x_1_6gf` is not `regnet_x_16gf`.
    """
    return re.sub(r"(?<!\d)[-_ ]+|[-_ ]+(?!\d)", "", name.casefold())


def called(name: str, table: Mapping[str, Entry]) -> str | None:
    """The name in a table of what is called so, or also called so, however that is spelled."""
    if name in table:
        return name
    others = {squeezed(alias): own for own, one in table.items() for alias in one.aliases}
    others |= {squeezed(own): own for own in table}
    return others.get(squeezed(name))


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """The sentence that says that no `what` is called so, which is most like, and which are."""
    known = list(known)
    close = most_like(name, known, 1)
    guess = f"did you mean {close[0]}? There are" if close else "choose one of"
    return f"no {what} {name!r}; {guess} {', '.join(known)}"


def spelled(name: str, known: Iterable[str]) -> str | None:
    """The known name that this is a spelling of; None if there is none, or several."""
    alike = [other for other in known if squeezed(other) == squeezed(name)]
    return alike[0] if len(alike) == 1 else None


def most_like(name: str, known: Iterable[str], count: int) -> list[str]:
    """The known names most like `name`, of one spelling first of all; none if none is like it."""
    spellings = {squeezed(other): other for other in known}
    found = difflib.get_close_matches(squeezed(name), spellings, count, cutoff=0.5)
    return [spellings[one] for one in found]


def nearest(name: str, known: Iterable[str], count: int = 5) -> str:
    """The known names most like `name`, as the end of a sentence."""
    names = [other for other in known if other]
    close = most_like(name, names, count)
    if close:
        return f"did you mean {' or '.join(close)}?"
    shown = names if len(names) <= 2 * count else [*names[: 2 * count], "…"]
    return f"there are {', '.join(shown)}" if names else "there are none"
