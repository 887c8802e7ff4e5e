"""What all requests of a service share, and how each of them is handled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from fastapi import Request, Response

from onnxplain.serve.gate import Gate, Place
from onnxplain.serve.metrics import Metrics
from onnxplain.serve.models import Models
from onnxplain.serve.pool import Pool
from onnxplain.serve.refusal import Refusal, overloaded, too_large
from onnxplain.serve.settings import Limits, Settings

_SILENCE = 0.25
"""The share of `Limits.read_seconds` that may pass before a body's next part: one that is begun and
then left takes room from the others."""

_GONE = 499  # nginx's number for a client that did not wait; never sent


class Service:
    """Models, threads and limits.

    Attributes:
        draining: set once the process is told to end; new connections are then unwelcome.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.models = Models(settings, self.metrics)
        self.pool = Pool(settings.running.decoders)
        self.gate = Gate(settings.limits, self.models.seconds_left, self.metrics)
        self.draining = False

    async def answer(
        self, request: Request, work: Callable[[bytes, Place], Awaitable[Response]]
    ) -> Response:
        """Admit a request, read its body, and answer it in time if its client waits.

        Args:
            work: answers a body; what it makes of that and keeps, it holds in the request's place.

        Raises:
            Refusal: there is no room (503); the body is too large (413) or too slow (408); it
                takes too long (503); the client has gone.
        """
        async with self._in_time():
            with self.gate.arriving() as place:
                with self.metrics.stage("read"):
                    body = await read_body(request, place, self.settings.limits)
                with self.gate.enter():
                    return await _while_connected(request, work(body, place))

    @asynccontextmanager
    async def admitted(self) -> AsyncIterator[None]:
        """Admit a request without a body, for as long as one may take.

        Raises:
            Refusal: there is no room, or it takes too long (503).
        """
        async with self._in_time():
            with self.gate.enter():
                yield

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        seconds = self.settings.limits.seconds
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            raise overloaded(
                f"this took more than {seconds:g} s", self.models.seconds_left()
            ) from None

    async def preload(self) -> None:
        """Load the models that should be in memory from the start.

        Raises:
            BackendError: a model cannot be loaded.
        """
        running = self.settings.running
        if running.preload:
            for name in list(self.settings.models)[: running.loaded]:
                async with self.models.use(name):
                    pass

    def close(self) -> None:
        self.models.close()
        self.pool.close()


async def read_body(request: Request, place: Place, limits: Limits) -> bytes:
    """A request's body.

    Raises:
        Refusal: it is too large or too slow, or the client has gone.
    """
    most = too_large(f"a request has {limits.body_bytes} bytes at most")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limits.body_bytes:
        raise most
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Refusal(415, "send the body as it is, without Content-Encoding", "malformed")
    body = bytearray()
    try:
        async with asyncio.timeout(limits.read_seconds):
            while True:
                async with asyncio.timeout(limits.read_seconds * _SILENCE):
                    message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise _gone()
                part = message.get("body", b"")
                if len(body) + len(part) > limits.body_bytes:
                    raise most
                place.hold(len(part))
                body += part
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise Refusal(
            408, f"the body did not come within {limits.read_seconds:g} s", "slow"
        ) from None


async def _while_connected(request: Request, work: Awaitable[Response]) -> Response:
    """The result of `work`, which is cancelled if the client leaves first."""
    answer = asyncio.ensure_future(work)
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise _gone()
        return answer.result()
    finally:
        for task in (answer, gone):
            if not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _gone() -> Refusal:
    return Refusal(_GONE, "the client has gone", "gone")
