"""HTTP connections that idle or slow clients cannot hold open."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, ClassVar, cast
from weakref import WeakSet

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from onnxplain.errors import InputError
from onnxplain.serve.names import resolved

_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
    b'Connection: close\r\nContent-Length: 42\r\n\r\n{"error": "too many connections are open"}'
)

_FIRST = 5.0
"""How many seconds a new connection has for its first request when the service ends, as in Go's
`net/http` (`Server.Shutdown`); its client has no other to ask on, and no reason to ask again."""

_STEP = 0.1  # seconds


class Connection(H11Protocol):
    """uvicorn's protocol, with time limits where it would wait for ever.

    They hold for a request's head, for the rest of a body whose answer has already been given, and
    for a client that accepts nothing of its answer. (`read_body` limits the body itself.)

    One connection too many takes the place of the one that has asked nothing for longest. Only
    where all are asking is it refused.

    Args:
        most: connections open at a time.
        seconds: each of these limits.
        cut: called with the reason when a connection is cut: "idle", "many", "slow" or "malformed".
        options: uvicorn's.
    """

    in_handshake: ClassVar[WeakSet[Connection]] = WeakSet()
    """Those that asyncio has accepted, and gives their transport once TLS is agreed on; of one that
    fails it tells nothing."""

    def __init__(
        self, most: int, seconds: float, cut: Callable[[str], None], **options: Any
    ) -> None:
        super().__init__(**options)
        self._most, self._seconds, self._cut = most, seconds, cut
        self._reading: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None
        self._silent_since = self.loop.time()
        self.in_handshake.add(self)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.in_handshake.discard(self)
        super().connection_made(transport)
        if len(self.connections) > self._most and not self._made_room():
            self._cut("many")
            transport.write(_FULL)
            transport.close()
            return
        self._expect_request()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        self._expect_request()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._silent_since = self.loop.time()
        if not self.transport.is_closing() and self.conn.their_state is not h11.IDLE:
            self._expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._reading, self._writing):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Close, after the answer where a request has begun to come or may be on its way.

        That may be the first of a connection. One that has been kept after an answer may be closed
        at any time (RFC 9112, 9.5), and its client then asks on another.
        """
        begun, _ = self.conn.trailing_data  # of a head: `_too_slow` waits for the rest
        first = self._silent_since + _FIRST
        if self.transport.is_closing() or (begun and self._asks_nothing()):
            return
        if self.cycle is None and self.loop.time() < first:
            self.loop.call_at(first, self.shutdown)
        else:
            super().shutdown()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_taking()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None

    def send_400_response(self, msg: str) -> None:
        """Cut a connection that does not speak HTTP, with an answer if none has begun."""
        self._cut("malformed")
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.abort()

    def _made_room(self) -> bool:
        """Cut the connection that has asked nothing for longest; False if all are asking."""
        others = cast(set[Connection], self.connections) - {self}
        silent = [other for other in others if other._asks_nothing()]
        if not silent:
            return False
        longest = min(silent, key=lambda other: other._silent_since)
        self._cut("idle")
        longest.transport.abort()  # to close it would wait for a TLS client's consent
        return True

    def _asks_nothing(self) -> bool:
        """Whether the client has taken its last answer, and sent no whole head since."""
        return (
            (self.cycle is None or self.cycle.response_complete)
            and self.conn.their_state is h11.IDLE
            and not self.transport.is_closing()
            and not self.transport.get_write_buffer_size()
        )

    def _expect_request(self) -> None:
        """Start waiting for a complete request head, or stop because it has come."""
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering and self._reading is not None:
            self._reading.cancel()
            self._reading = None
        elif not answering and self._reading is None:
            self._reading = self.loop.call_later(self._seconds, self._too_slow)

    def _too_slow(self) -> None:
        self._reading = None
        if not self.transport.is_closing():
            self._cut("slow")
            self.transport.close()

    def _expect_taking(self) -> None:
        """Start waiting for the client to accept some of what is being sent."""
        left = self.transport.get_write_buffer_size()
        self._writing = self.loop.call_later(self._seconds, self._taken, left)

    def _taken(self, left_before: int) -> None:
        if self.transport.get_write_buffer_size() < left_before:
            self._expect_taking()
        else:
            self._cut("slow")
            self.transport.abort()


async def handshakes() -> None:
    """Wait for those that have begun, as long as for a new connection's first request."""
    loop = asyncio.get_running_loop()
    end = loop.time() + _FIRST
    await asyncio.sleep(_STEP)
    while Connection.in_handshake and loop.time() < end:
        await asyncio.sleep(_STEP)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any that is free.

    Raises:
        InputError: the address cannot be used.
    """
    family, address = resolved(host, port)
    try:
        return socket.create_server(address, family=family, backlog=1024)
    except OSError as error:
        raise InputError(f"cannot listen on {host}:{port}: {error.strerror}") from error


def url(listener: socket.socket, scheme: str = "http") -> str:
    """The URL that it listens on, without a final slash."""
    host, port = listener.getsockname()[:2]
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
