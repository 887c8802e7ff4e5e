"""Requests that are nearly those of clients, given to the application in this process."""

from __future__ import annotations

import asyncio
import base64
import functools
import io
import json
import os
import random
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import h11
import numpy as np
import onnx
from PIL import Image

from onnxplain.errors import InputError
from onnxplain.serve.app import create_app
from onnxplain.serve.names import hosts_of
from onnxplain.serve.service import Service
from onnxplain.serve.settings import Limits, Running, Settings

from .mutants import other
from .scrambled import scrambled
from .seeds import explain_graphs

_HOST = "127.0.0.1"
_LIMITS = Limits(body_bytes=1 << 20, pixels=100_000, images=4)
_IMAGE = (3, 8, 8)
_OPTIONS = (
    *("targets=0", "targets=a", "targets=-9", "top_k=2", "top_k=1e9", "temperature=0.5"),
    *(
        "temperature=1e-300",
        "temperature=nan",
        "output=png",
        "output=npz",
        "output=%00",
        "%ff",
        "a=b",
    ),
)
_HEADERS = (
    *("Host: 127.0.0.1", "Host: evil.example", "Host: [::1", "Host:", "Origin: null"),
    *(
        "Origin: http://[",
        "Sec-Fetch-Site: cross-site",
        "X-Request-ID: \x80",
        "Expect: 100-continue",
    ),
    *("Content-Length: 99999999999", "Content-Length: 1", "Transfer-Encoding: chunked"),
    *("Content-Encoding: gzip", "Content-Type: multipart/form-data; boundary=", "Range: bytes=9-1"),
    *("Content-Type: application/json; charset=utf-7", "Content-Type: \xff", "If-Range: x"),
    *("Inference-Header-Content-Length: -1", "Inference-Header-Content-Length: 10", "Upgrade: h2c"),
)
_NAMES = ("plain", "multi", "nobody", "..", "%2e%2e%2f", "plain%00", "a" * 300)


def seeds() -> list[bytes]:
    """One of each kind that the service answers."""
    encoded = io.BytesIO()
    Image.new("RGB", (12, 9), "red").save(encoded, "PNG")
    image, tensor = encoded.getvalue(), np.ones(_IMAGE, "<f4").tobytes()
    packed = {"shape": _IMAGE, "dtype": "float32", "data": base64.b64encode(tensor).decode()}
    ports: list[dict[str, Any]] = [
        {"name": "image", "shape": [1, *_IMAGE], "datatype": "FP32", "data": [0.5] * 192},
        {"name": "target", "shape": [1], "datatype": "INT64", "data": [-1]},
    ]
    listed = _json({"inputs": ports})
    ports[0] = {**ports[0], "parameters": {"binary_data_size": len(tensor)}}
    del ports[0]["data"]
    head = _json({"inputs": ports, "id": "1", "parameters": {"binary_data_output": True}})
    form = b'--b\r\nContent-Disposition: form-data; name="targets"\r\n\r\na\r\n'
    form += b'--b\r\nContent-Disposition: form-data; name="image"; filename="f"\r\n\r\n'
    form += image + b"\r\n--b--\r\n"
    json_, raw, binary = "application/json", "application/octet-stream", "multipart/form-data"
    explain, infer = "/v1/models/plain:explain", "/v2/models/plain/infer"
    asked = _json({"image": base64.b64encode(image).decode(), "targets": [-1, "b"], "top_k": 2})
    several = _json({"tensor": packed, "temperature": 0.5, "targets": [0, 1, 2]})
    return [
        *map(_get, ("/health", "/ready", "/metrics", "/v1/models", "/v2", "/v2/models/plain")),
        *map(_get, ("/openapi.json", "/docs", "/v2/models/plain/ready", "/nothing")),
        _post(explain, f"{binary}; boundary=b", form),
        _post(explain, json_, asked),
        _post("/v1/models/multi:explain", json_, several),
        _post(f"{explain}?targets=1&output=png", raw, tensor),
        _post(infer, json_, listed),
        _post(infer, raw, head + tensor, f"Inference-Header-Content-Length: {len(head)}"),
        _post("/v2/repository/index", json_, b"{}"),
    ]


def mutant(seed: bytes, rng: random.Random) -> bytes:
    """A copy with another path, headers or body, which is as long as is said, or other bytes."""
    if rng.random() < 0.2:
        return scrambled(seed, rng)
    head, _, body = seed.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    for _ in range(rng.choice([1, 1, 2, 3])):
        match rng.randrange(8):
            case 0:
                lines.insert(rng.randrange(len(lines) + 1), rng.choice(_HEADERS))
            case 1 if lines:
                lines.remove(rng.choice(lines))
            case 2:
                method, _, rest = first.partition(" ")
                method = rng.choice(["GET", "POST", "HEAD", "PUT", "OPTIONS", "X" * 30, "DELETE"])
                first = f"{method} {rest}"
            case 3:
                first = first.replace("plain", rng.choice(_NAMES))
            case 4:
                joint = "&" if "?" in first else "?"
                first = first.replace(" HTTP", f"{joint}{rng.choice(_OPTIONS)} HTTP")
            case 5 | 6 if body.startswith(b"{"):
                body = _in_json(body, rng)
            case _ if body:
                body = scrambled(body, rng)
    if rng.random() < 0.9:
        lines = [line for line in lines if not line.startswith("Content-Length")]
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([first, *lines, "", ""]).encode("latin-1") + body


def attempting(folder: Path) -> Callable[[Path], None]:
    """What asks a service of two models; in each process one of its own, as threads do not fork.

    Raises (when called):
        InputError: the request is refused, and how.
        AssertionError: it is answered with another status, or with JSON that is none.
    """
    _, _, plain, multi, *_ = explain_graphs()
    models = {"plain": folder / "plain.onnx", "multi": folder / "multi.onnx"}
    onnx.save(plain, models["plain"])
    onnx.save(multi, models["multi"])

    @functools.cache
    def served(process: int) -> tuple[asyncio.AbstractEventLoop, Any]:
        running = Running("cpu", threads=1, decoders=1)
        hosts = hosts_of(_HOST, None, ())
        service = Service(Settings(models, _LIMITS, running=running, hosts=hosts))
        return asyncio.new_event_loop(), create_app(service)

    def attempt(path: Path) -> None:
        loop, app = served(os.getpid())
        status, kind, body = loop.run_until_complete(answer(app, path.read_bytes()))
        if kind.startswith(b"application/json") and body:
            json.loads(body, parse_constant=_refuse)
        if 400 <= status < 500 or status == 503:
            raise InputError(f"{status}: {body[:200]!r}")
        assert 200 <= status < 400, (status, body[:200])

    return attempt


async def answer(app: Any, data: bytes) -> tuple[int, bytes, bytes]:
    """Status, content type and body that an application answers to what comes on a connection."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    connection.receive_data(b"")
    try:
        request = connection.next_event()
        if not isinstance(request, h11.Request):
            return 400, b"", b""
        parts = []
        while isinstance(event := connection.next_event(), h11.Data):
            parts.append({"type": "http.request", "body": bytes(event.data), "more_body": True})
        if isinstance(event, h11.EndOfMessage):
            parts.append({"type": "http.request", "body": b"", "more_body": False})
    except h11.RemoteProtocolError:
        return 400, b"", b""
    found: list[MutableMapping[str, Any]] = []
    whole = isinstance(event, h11.EndOfMessage)

    async def receive() -> MutableMapping[str, Any]:
        if not parts and whole:
            await asyncio.Event().wait()  # the client waits
        return parts.pop(0) if parts else {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        found.append(message)

    await app(_scope(request), receive, send)
    kinds = [value for name, value in found[0]["headers"] if name.lower() == b"content-type"]
    body = b"".join(message.get("body", b"") for message in found[1:])
    return found[0]["status"], (kinds or [b""])[0], body


def _scope(request: h11.Request) -> dict[str, Any]:
    """As uvicorn makes it."""
    path, _, query = bytes(request.target).partition(b"?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": bytes(request.http_version).decode("ascii"),
        "scheme": "http",
        "method": bytes(request.method).decode("ascii"),
        "root_path": "",
        "path": unquote(path.decode("ascii")),
        "raw_path": path,
        "query_string": query,
        "headers": [(bytes(name), bytes(value)) for name, value in request.headers],
        "client": (_HOST, 1),
        "server": (_HOST, 2),
        "state": {},
    }


def _in_json(body: bytes, rng: random.Random) -> bytes:
    """With another value somewhere in it, and what followed it."""
    text = body.decode("latin-1")
    try:
        tree, end = json.JSONDecoder().raw_decode(text)
    except ValueError:
        return scrambled(body, rng)
    return _json(other(tree, rng)) + body[end:]


def _json(tree: Any) -> bytes:
    return json.dumps(tree).encode()


def _get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {_HOST}\r\n\r\n".encode()


def _post(path: str, kind: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", f"Host: {_HOST}", f"Content-Type: {kind}", *headers]
    lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} in JSON")
