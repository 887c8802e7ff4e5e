"""Tables of what has a name, which packages of users may add to."""

from __future__ import annotations

from typing import Protocol, TypeVar

from onnxplain.errors import SourceError
from onnxplain.export.suggest import nearest


class Named(Protocol):
    """What a table may hold."""

    @property
    def name(self) -> str: ...


Entry = TypeVar("Entry", bound=Named)


class Registry(dict[str, Entry]):
    """Name → entry, in the order in which they were registered.

    Attributes:
        what: an entry is called so in messages.
    """

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def register(self, entry: Entry) -> Entry:
        """Make it known by its name, to Python and to the command line; returns it.

        A later one replaces an earlier one of that name.
        """
        self[entry.name] = entry
        return entry

    def named(self, name: str) -> Entry:
        """The entry of that name.

        Raises:
            SourceError: there is none; the message names those most like it, or all there are.
        """
        if name not in self:
            raise SourceError(f"no {self.what} {name!r}; {nearest(name, self, len(self))}")
        return self[name]
