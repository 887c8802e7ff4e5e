"""Explained frames over HTTP, as the motion JPEG that every browser shows."""

from __future__ import annotations

import io
import ipaddress
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from onnxplain.errors import InputError
from onnxplain.stream.source import Frame

_PAGE = (
    b'<!doctype html><meta charset="utf-8"><title>onnxplain stream</title>'
    b'<body style="margin:0;background:#141414"><img src="/stream.mjpg" alt="the explained video" '
    b'style="display:block;margin:auto;max-width:100vw;max-height:100vh">'
)
_BOUNDARY = "frame"
_MOST_VIEWERS = 16
_TIMEOUT = 10.0  # seconds that a viewer may take to ask, or to accept a frame
_QUALITY = 80


class MotionJpeg:
    """A server of one page and one stream. A slow viewer misses frames; none waits for it.

    Args:
        host: 127.0.0.1 shows it to this machine alone; there is no password.
        port: 0 for a free one.

    Attributes:
        url: of the page.

    Raises:
        InputError: the port cannot be had.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._frames = _Newest()
        shared = {"frames": self._frames, "loopback": _loopback(host)}
        handler = type("Handler", (_Handler,), shared)
        try:
            self._server = _Server((host, port), handler)
        except OSError as error:
            raise InputError(f"cannot listen on {host}:{port}: {error.strerror}") from error
        self.url = f"http://{host}:{self._server.server_address[1]}/"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> MotionJpeg:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._frames.end()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def show(self, image: Image.Image, frame: Frame) -> bool:
        """Show a frame to whoever looks; always True."""
        if self._frames.viewers:
            encoded = io.BytesIO()
            image.save(encoded, "JPEG", quality=_QUALITY)
            self._frames.set(encoded.getvalue())
        return True


class _Newest:
    """The newest frame, which any number of threads wait for."""

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
        """Whether there is room for one more viewer, who then counts."""
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


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A viewer that went away is nothing to report."""


class _Handler(BaseHTTPRequestHandler):
    frames: _Newest
    loopback: bool
    timeout = _TIMEOUT

    def do_GET(self) -> None:
        if self.loopback and not _loopback(_name(self.headers.get("Host", ""))):
            self.send_error(403)  # another site's page, whose name was made to mean this machine
        elif self.path == "/":
            self._begin(200, "text/html; charset=utf-8")
            self.wfile.write(_PAGE)
        elif self.path != "/stream.mjpg":
            self.send_error(404)
        elif not self.frames.enter():
            self.send_error(503, "too many viewers")
        else:
            try:
                self._stream()
            finally:
                self.frames.leave()

    def _stream(self) -> None:
        self._begin(200, f"multipart/x-mixed-replace; boundary={_BOUNDARY}")
        number = 0
        while (newest := self.frames.after(number)) is not None:
            number, jpeg = newest
            head = f"Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n"
            self.wfile.write(f"--{_BOUNDARY}\r\n{head}\r\n".encode() + jpeg + b"\r\n")

    def _begin(self, status: int, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """The terminal shows the frames' counts instead."""


def _name(host: str) -> str:
    """What the header Host has before the port, which port 80 leaves out; empty if it is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _loopback(host: str) -> bool:
    """Whether a name, or an address with or without brackets, is this machine to itself."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
