"""The service among clients of every kind: `python -m onnxplain.bench.mixed_load --minutes 120`.

Starts `onnxplain serve` in a process of its own. Honest clients ask alone first, then among others:
malformed ones send what is no request, slow ones a byte a second, and aborting ones hang up on what
they asked. Results: `bench/results/mixed_load.json`.

It fails (status 1) unless honest clients get 200 or 503, with the runtime's own numbers, and at the
99th percentile in at most three times as long as alone; all others get 4xx, 503 or nothing; memory
in the last quarter is at most 1.1 × that of the second; and the service is ready at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnxplain.bench.http_client import Client, RefusedConnection, post_form
from onnxplain.bench.serving import (
    MOST_ERROR,
    MOST_MEMORY,
    NAME,
    Question,
    Running,
    load,
    questions,
    served,
    service,
)
from onnxplain.files import replacing
from onnxplain.machine import load_average, machine

RESULT = Path(__file__).parent / "results" / "mixed_load.json"
MOST_SLOWER = 3.0

_HONEST = 0.1  # of the clients; the others are of the three kinds alike
_PAUSE = 1.0  # seconds between two attempts of a hostile client, at the mean
_PATIENCE = 120.0  # seconds to wait for an answer
_WARM = 5.0  # seconds
_ALONE = 300.0  # seconds at most that the honest ask alone: thousands of answers
_POST = f"POST /v1/models/{NAME}:explain HTTP/1.1\r\nHost: localhost\r\n".encode()
_MULTIPART = b"Content-Type: multipart/form-data; boundary=b\r\n"

MALFORMED: tuple[bytes, ...] = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),  # TLS
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /ready HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    b"DELETE /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    _POST + b"Content-Length: 99999999999\r\n" + _MULTIPART + b"\r\n",
    _POST + b"Content-Length: -1\r\n\r\n",
    _POST + b"Content-Length: 4\r\n" + _MULTIPART + b"\r\n\x00\x01\x02\x03",
    _POST + b"Content-Length: 2\r\nContent-Type: application/json\r\n\r\n[]",
    _POST + b"Transfer-Encoding: chunked\r\n" + _MULTIPART + b"\r\nzz\r\n",
    post_form(f"/v1/models/{NAME}:explain", b"no image", {}),
    post_form(f"/v1/models/{NAME}:explain", b"\x89PNG\r\n\x1a\n" + bytes(999), {}),
    post_form(f"/v1/models/{NAME}:explain", b"", {"target": "1e999", "output": "\x1b[2J"}),
    post_form("/v1/models/none:explain", b"", {}),
)


async def _malformed(running: Running, asked: Sequence[Question], rng: random.Random) -> str:
    request = rng.choice(MALFORMED)
    if rng.random() < 0.3:  # bytes of it changed, or its end cut off
        changed = bytearray(request)
        for _ in range(3):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        request = bytes(changed[: rng.randrange(1, len(changed) + 1)])
    reader, writer = await asyncio.open_connection(running.host, running.port)
    try:
        writer.write(request)
        return _status(await asyncio.wait_for(reader.readline(), _PATIENCE))
    finally:
        writer.close()


async def _slow(running: Running, asked: Sequence[Question], rng: random.Random) -> str:
    request = rng.choice(asked).request
    reader, writer = await asyncio.open_connection(running.host, running.port)
    try:
        begun = rng.randrange(1, 600)
        writer.write(request[:begun])
        answer = asyncio.ensure_future(reader.readline())
        for byte in request[begun : begun + int(_PATIENCE)]:
            await asyncio.wait([answer], timeout=1)
            if answer.done() or reader.at_eof():
                break
            writer.write(bytes([byte]))
        return _status(await asyncio.wait_for(answer, 1))
    finally:
        writer.close()


async def _aborting(running: Running, asked: Sequence[Question], rng: random.Random) -> str:
    request = rng.choice(asked).request
    _, writer = await asyncio.open_connection(running.host, running.port)
    writer.write(request[: rng.choice([len(request), rng.randrange(len(request))])])
    await asyncio.sleep(rng.random() / 10)
    writer.transport.abort()
    return "hung up"


_HOSTILE: Mapping[str, Callable[[Running, Sequence[Question], random.Random], Awaitable[str]]] = {
    "malformed": _malformed,
    "slow": _slow,
    "aborting": _aborting,
}
_NOTHING = "no answer"


def _status(line: bytes) -> str:
    parts = line.split()
    return parts[1].decode("latin-1") if len(parts) > 1 else _NOTHING


async def _attacked(
    running: Running, asked: Sequence[Question], clients: int, seconds: float
) -> dict[str, Any]:
    """Honest clients among hostile ones, and the service's memory second by second."""
    memory: list[int] = []
    ends: dict[str, Counter[str]] = {kind: Counter() for kind in _HOSTILE}
    loop = asyncio.get_running_loop()
    late = loop.time() + seconds

    async def watch() -> None:
        while True:
            memory.append(running.memory())
            await asyncio.sleep(1)

    async def hostile(kind: str, number: int) -> None:
        rng = random.Random(number)
        while loop.time() < late:
            await asyncio.sleep(rng.expovariate(1 / _PAUSE))
            try:
                ends[kind][await _HOSTILE[kind](running, asked, rng)] += 1
            except (OSError, TimeoutError):
                ends[kind][_NOTHING] += 1

    honest = max(1, int(_HONEST * clients))
    kinds = itertools.islice(itertools.cycle(_HOSTILE), clients - honest)
    watching = asyncio.create_task(watch())
    attack = [asyncio.create_task(hostile(kind, i)) for i, kind in enumerate(kinds)]
    tally = await load(running, asked, honest, seconds)
    for task in attack:
        task.cancel()
    await asyncio.gather(*attack, return_exceptions=True)
    watching.cancel()
    quarter = max(1, len(memory) // 4)
    return {
        "honest": tally.summary(),
        **{kind: dict(sorted(found.items())) for kind, found in ends.items()},
        "memory_bytes": {
            "second quarter": int(np.mean(memory[quarter : 2 * quarter])),
            "last quarter": int(np.mean(memory[-quarter:])),
            "most": max(memory),
        },
    }


async def _ready(running: Running) -> bool:
    async with Client(running.host, running.port) as connection:
        try:
            answer = await connection.send(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
        except (RefusedConnection, OSError):
            return False
        return answer.status == 200


def measure(graph: Path, clients: int, seconds: float) -> dict[str, Any]:
    """All of it; ready for JSON."""
    asked = questions(graph)
    honest = max(1, int(_HONEST * clients))
    with service(graph) as running:
        asyncio.run(load(running, asked, honest, _WARM))
        quietly = min(max(_WARM, seconds / 4), _ALONE)
        alone = asyncio.run(load(running, asked, honest, quietly)).summary()
        attacked = asyncio.run(_attacked(running, asked, clients, seconds))
        ready = asyncio.run(_ready(running))
    return {
        "network": NAME,
        "clients": clients,
        "honest clients": honest,
        "alone": alone,
        "attacked": attacked,
        "p99, attacked ÷ alone": attacked["honest"]["p99"] / alone["p99"],
        "ready at the end": ready,
        "load": load_average(),
        "machine": machine(),
    }


def troubles(measured: Mapping[str, Any]) -> list[str]:
    """What does not hold, in words."""
    attacked, found = measured["attacked"], []
    for name, tally in (("alone", measured["alone"]), ("attacked", attacked["honest"])):
        if not set(tally["statuses"]) <= {"200", "503"} or tally["lost"]:
            found.append(f"honest clients, {name}: {tally['statuses']}, {tally['lost']} lost")
        if not tally["max_error"] <= MOST_ERROR:
            found.append(f"honest clients, {name}: numbers are {tally['max_error']} off")
    for kind in _HOSTILE:
        others = {
            status: count
            for status, count in attacked[kind].items()
            if not (status.startswith("4") or status in ("200", "503", "hung up", _NOTHING))
        }
        if others or ("200" in attacked[kind] and kind != "malformed"):
            found.append(f"{kind} clients: {attacked[kind]}")
    memory = attacked["memory_bytes"]
    if memory["last quarter"] > MOST_MEMORY * memory["second quarter"]:
        found.append(f"memory grows: {memory}")
    if measured["p99, attacked ÷ alone"] > MOST_SLOWER:
        found.append(f"honest clients wait {measured['p99, attacked ÷ alone']:.2f} × as long")
    if not measured["ready at the end"]:
        found.append("it is not ready at the end")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--graph", type=Path, help="of EfficientNet-Lite0; else it is exported")
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    with served(given.graph) as graph:
        measured = {"minutes": given.minutes, **measure(graph, given.clients, 60 * given.minutes)}
    with replacing(given.out) as beside:
        beside.write_text(json.dumps(measured, indent=1) + "\n")
    print(json.dumps(measured, indent=1))
    if found := troubles(measured):
        raise SystemExit("\n".join(found))


if __name__ == "__main__":
    main()
