"""Tables of what has a name, which packages of users may add to."""

from __future__ import annotations

from typing import Protocol, TypeVar

from onnxplain.errors import SourceError
from onnxplain.suggest import called, unknown


class Named(Protocol):
    """What a table may hold."""

    @property
    def name(self) -> str: ...
    @property
    def aliases(self) -> tuple[str, ...]: ...


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
        """The entry that `find` finds.

        Raises:
            SourceError: there is none; the message says which is most like it, and all there are.
        """
        found = self.find(name)
        if found is None:
            raise SourceError(unknown(self.what, name, self))
        return found

    def find(self, name: str) -> Entry | None:
        """The entry of that name, or which is also called so, however that is spelled."""
        own = called(name, self)
        return None if own is None else self[own]
