"""`onnxplain serve` in a process of its own."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

PATIENCE = 60  # seconds: the machine may be busy


@dataclass(frozen=True)
class Process:
    """A service that listens at `url`."""

    running: subprocess.Popen[bytes]
    url: str
    log: Path

    def entries(self, event: str) -> list[dict[str, Any]]:
        """What it has logged of that event."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [line for line in lines if line["event"] == event]

    def entry(self, event: str, **fields: Any) -> dict[str, Any]:
        """The one that has these fields, once it is there: an answer comes before its line."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for entry in self.entries(event):
                if entry.items() >= fields.items():
                    return entry
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def healthy(self) -> bool:
        return httpx.get(f"{self.url}/ready", timeout=PATIENCE).json() == {"status": "ok"}

    def connect(self) -> socket.socket:
        """A connection that gives up before the test does."""
        address = urlsplit(self.url)
        return socket.create_connection((address.hostname, address.port), timeout=PATIENCE)


def everything(connection: socket.socket) -> bytes:
    """What comes until the other side closes; nothing if it resets."""
    received = b""
    try:
        while part := connection.recv(65536):
            received += part
    except ConnectionError:
        pass
    return received


@contextmanager
def started(
    models: Iterable[object],
    *options: str,
    command: Sequence[str] = (sys.executable, "-m", "onnxplain.cli", "serve"),
    **environment: Any,
) -> Iterator[Process]:
    """A service, ready; killed at the end if it still runs."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as file:
            running = subprocess.Popen(
                [*command, *map(str, models), "--port", "0", *options],
                stderr=file,
                **environment,
            )
        process = Process(running, "", log)
        try:
            deadline = time.monotonic() + PATIENCE
            while not process.entries("Application startup complete."):
                assert running.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            yield Process(running, process.entries("listening")[0]["url"], log)
        finally:
            running.kill()
            running.wait()
