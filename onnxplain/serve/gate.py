"""Admission: a bounded number of requests, and a bounded number of bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from onnxplain.serve.metrics import Metrics
from onnxplain.serve.refusal import overloaded
from onnxplain.serve.settings import Limits


class Place:
    """What a request holds from the first byte of its body until it is answered."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.bytes = 0

    def hold(self, more: int) -> None:
        """Take room for `more` bytes: of its body, or of a photograph decoded from that.

        Raises:
            Refusal: what all requests hold together would be too large.
        """
        self._gate.grow(more)
        self.bytes += more


class Gate:
    """Admits requests while there is room, and turns others away at once.

    Args:
        limits: on requests and their bytes.
        seconds_left: about how long the admitted requests will take, for those turned away.
        metrics: where both numbers are shown.
    """

    def __init__(self, limits: Limits, seconds_left: Callable[[], float], metrics: Metrics) -> None:
        self._limits = limits
        self._seconds_left = seconds_left
        self._requests = 0
        self._bytes = 0
        metrics.accepted.set_function(lambda: self._requests)
        metrics.held.set_function(lambda: self._bytes)

    @contextmanager
    def arriving(self) -> Iterator[Place]:
        """While a body arrives, and until it is answered: it does not count as a request yet.

        So clients that send theirs slowly keep nobody out. Raises Refusal (503) if there are too
        many requests already.
        """
        self._check()
        place = Place(self)
        try:
            yield place
        finally:
            self._bytes -= place.bytes

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Once the body is there. Raises Refusal (503) if there are too many already."""
        self._check()
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1

    def _check(self) -> None:
        if self._requests >= self._limits.requests:
            raise overloaded(
                f"{self._requests} requests wait already, try again later", self._seconds_left()
            )

    def grow(self, more: int) -> None:
        """Raises Refusal (503) if what all requests hold together would be too large."""
        if self._bytes + more > self._limits.held_bytes:
            raise overloaded(
                "the requests that wait fill the memory there is for them, try again later",
                self._seconds_left(),
            )
        self._bytes += more
