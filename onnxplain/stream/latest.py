"""Handing over the newest item, and dropping those that nobody took in time."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Latest(Generic[Item]):
    """A place for one item: a newer one replaces one that has not been taken.

    One thread puts, another takes.

    Attributes:
        put_count, dropped: how many items were put, and how many of them were never taken.
    """

    def __init__(self) -> None:
        self.put_count = 0
        self.dropped = 0
        self._item: Item | None = None
        self._closed = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def put(self, item: Item) -> None:
        """Leave an item to be taken."""
        with self._changed:
            self.put_count += 1
            if self._item is not None:
                self.dropped += 1
            self._item = item
            self._changed.notify()

    def close(self, error: BaseException | None = None) -> None:
        """No more will come. The last item can still be taken; then `take` raises the error."""
        with self._changed:
            self._closed = True
            self._error = self._error or error
            self._changed.notify()

    def abandon(self) -> None:
        """Nothing more will be taken; the last item is dropped."""
        with self._changed:
            self._closed = True
            if self._item is not None:
                self._item = None
                self.dropped += 1

    def take(self) -> Item | None:
        """Wait for the next item; None when there will be no more."""
        with self._changed:
            while self._item is None and not self._closed:
                self._changed.wait()
            item, self._item = self._item, None
            if item is None and self._error is not None:
                raise self._error
            return item
