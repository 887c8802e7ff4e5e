"""The least HTTP client that can load a service without taking its processor."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from secrets import token_hex
from typing import Self


@dataclass(frozen=True)
class Answer:
    """What a service answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def retry_after(self) -> float:
        """Seconds; 0 where it says none."""
        return float(self.headers.get("retry-after", 0))


class RefusedConnection(Exception):  # noqa: N818
    """Nobody listens: nothing was sent."""


class Client:
    """One connection, kept open; an asyncio context manager.

    A request is a whole one, written at once. Whatever breaks off after it was sent is an
    `OSError` or `asyncio.IncompleteReadError`.
    """

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def send(self, request: bytes) -> Answer:
        """The answer to a request.

        Raises:
            RefusedConnection: nobody listens.
            OSError, asyncio.IncompleteReadError: no answer, or not all of one.
        """
        if self._streams is None:
            try:
                self._streams = await asyncio.open_connection(*self._address)
            except OSError as error:
                raise RefusedConnection(str(error)) from error
        reader, writer = self._streams
        try:
            writer.write(request)
            await writer.drain()
            answer = await _read(reader)
        except BaseException:
            self.close()
            raise
        if answer.headers.get("connection") == "close":
            self.close()
        return answer


async def _read(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
    status = int(head[0].split()[1])
    headers = {}
    for line in head[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Answer(status, headers, body)


def post_form(path: str, image: bytes, fields: dict[str, str]) -> bytes:
    """A whole request: an image and fields, as multipart/form-data."""
    boundary = token_hex(8)
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    parts.append(
        f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="image"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n".encode()
    )
    body = b"".join([*parts, image, f"\r\n--{boundary}--\r\n".encode()])
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        f"Content-Type: multipart/form-data; boundary={boundary}\r\n\r\n"
    )
    return head.encode() + body
