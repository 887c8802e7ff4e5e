"""Explained frames over HTTP, as motion JPEG, which every browser shows."""

from __future__ import annotations

import io
import ipaddress
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any, cast
from urllib.parse import urlsplit

from PIL import Image
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send
from uvicorn import Config, Server

from onnxplain.serve.connections import Connection, listen, url
from onnxplain.stream.source import Frame

_PAGE = (
    b'<!doctype html><meta charset="utf-8"><title>onnxplain stream</title>'
    b'<body style="margin:0;background:#141414"><img src="/stream.mjpg" alt="the explained video" '
    b'style="display:block;margin:auto;max-width:100vw;max-height:100vh">'
)
_BOUNDARY = "frame"
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
_MOST_VIEWERS = 16
_MOST_CONNECTIONS = 64
_TIMEOUT = 10.0  # seconds that a viewer may take to ask, or to accept a frame
_SECONDS_TO_END = 1  # for viewers to accept what has been sent
_QUALITY = 80


class MotionJpeg:
    """A server for one page and one stream. A slow viewer misses frames, and holds up nobody.

    Args:
        port: 0 for any free one.
        host: 127.0.0.1 shows it to this machine only; there is no password.

    Attributes:
        url: the page's.

    Raises:
        InputError: the port cannot be used.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._frames = _Newest()
        self._listener = listen(host, port)
        self.url = f"{url(self._listener)}/"
        config = Config(
            _Application(self._frames, _loopback(host)),
            http=cast(Any, partial(Connection, _MOST_CONNECTIONS, _TIMEOUT, lambda reason: None)),
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",  # a viewer that goes away is nothing to report
            server_header=False,
            timeout_graceful_shutdown=_SECONDS_TO_END,
        )
        self._server = Server(config)
        run = partial(self._server.run, [self._listener])
        self._thread = threading.Thread(target=run, daemon=True)

    def __enter__(self) -> MotionJpeg:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._frames.end()
        self._server.should_exit = True
        self._thread.join()

    def show(self, image: Image.Image, frame: Frame) -> bool:
        """Show a frame to whoever is watching; always True."""
        if self._frames.viewers:
            encoded = io.BytesIO()
            image.save(encoded, "JPEG", quality=_QUALITY)
            self._frames.set(encoded.getvalue())
        return True


class _Application:
    """The page and the stream (an ASGI application).

    Args:
        loopback: whether only this machine can ask; requests must then be addressed to it.
    """

    def __init__(self, frames: _Newest, loopback: bool) -> None:
        self._frames, self._loopback = frames, loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._answer(Request(scope))(scope, receive, send)

    def _answer(self, request: Request) -> Response:
        path = request.scope["path"]
        if self._loopback and not _loopback(_name(request.headers.get("Host", ""))):
            return Response(
                status_code=403
            )  # a page of another site, whose name was made to lead here
        if path not in ("/", "/stream.mjpg"):
            return Response(status_code=404)
        if request.method != "GET":
            return Response(status_code=405)
        if path == "/":
            return HTMLResponse(_PAGE, headers=_HEADERS)
        if not self._frames.enter():
            return PlainTextResponse("too many viewers", status_code=503)
        return _Stream(self._frames)


class _Stream(StreamingResponse):
    """The frames for a viewer who has entered."""

    def __init__(self, frames: _Newest) -> None:
        self._frames = frames
        kind = f"multipart/x-mixed-replace; boundary={_BOUNDARY}"
        super().__init__(self._parts(), media_type=kind, headers=_HEADERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._frames.leave()

    def _parts(self) -> Iterator[bytes]:
        number = 0
        while (newest := self._frames.after(number)) is not None:
            number, jpeg = newest
            head = f"Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n"
            yield f"--{_BOUNDARY}\r\n{head}\r\n".encode() + jpeg + b"\r\n"


class _Newest:
    """The newest frame, which any number of threads can wait for."""

    def __init__(self) -> None:
        self.viewers = 0
        self._jpeg: bytes = b""
        self._number = 0
        self._ended = False
        self._changed = threading.Condition()

    def set(self, jpeg: bytes) -> None:
        with self._changed:
            self._jpeg, self._number = jpeg, self._number + 1
            self._changed.notify_all()

    def end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def enter(self) -> bool:
        """Count one more viewer if there is room, and say whether there was."""
        with self._changed:
            if self.viewers >= _MOST_VIEWERS:
                return False
            self.viewers += 1
            return True

    def leave(self) -> None:
        with self._changed:
            self.viewers -= 1

    def after(self, number: int) -> tuple[int, bytes] | None:
        """The newest frame once there is one after `number`; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._number > number or self._ended)
            return None if self._ended else (self._number, self._jpeg)


def _name(host: str) -> str:
    """The host in the header Host, without a port; empty if it is invalid."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _loopback(host: str) -> bool:
    """Whether a name, or an address with or without brackets, means this machine itself."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
