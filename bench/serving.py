"""The service under load, from another process: `python -m onnxplain.bench.serving`.

    python -m onnxplain.bench.serving                  # 200 clients for two minutes
    python -m onnxplain.bench.serving --seconds 20 --clients 50

Starts `onnxplain serve` in a process of its own with what it does by default, and measures from
this one: one request at a time, then many clients at once, each of which sends its next request
when it has the answer (and waits as Retry-After says). Every answer is compared with the runtime's.
Then once more, with SIGTERM in the middle. Results: `bench/results/serving.json`.

It fails (status 1) unless every request gets its answer, 200 or 503, and each 200 is within 1e-5 of
the runtime's; many clients get at least 1.5 × the answers per second of one; memory in the last
quarter is at most 1.1 × that of the second; and SIGTERM ends the service with status 0 and as many
explanations in its log as clients got.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import itertools
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image

import onnxplain
from onnxplain.bench.http_client import Client, RefusedConnection, post_form
from onnxplain.export import export
from onnxplain.files import replacing, scratch
from onnxplain.machine import machine, threads

RESULT = Path(__file__).parent / "results" / "serving.json"
MOST_ERROR, LEAST_GAIN, MOST_MEMORY = 1e-5, 1.5, 1.1

NAME = "efficientnet-lite0"
_PATH = f"/v1/models/{NAME}:explain"
_START_SECONDS = 60
_WARM_SECONDS = 3.0


@dataclass(frozen=True)
class Question:
    """A request and what its answer should hold."""

    request: bytes
    logits: NDArray[Any]
    pullback: NDArray[Any]


@dataclass
class Tally:
    """What clients saw.

    Attributes:
        seconds: of each answered with 200.
        statuses: how many answers of each.
        lost: requests that were sent and got no answer.
        error: the greatest |difference| to the runtime's logits and pullbacks.
        wall: seconds from the first request to the last answer.
    """

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    lost: int = 0
    error: float = 0.0
    wall: float = 0.0

    def summary(self) -> dict[str, Any]:
        p50, p95, p99 = np.quantile(self.seconds, (0.5, 0.95, 0.99)).tolist()
        return {
            "p50": p50,
            "p95": p95,
            "p99": p99,
            "per_second": len(self.seconds) / self.wall,
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "lost": self.lost,
            "max_error": self.error,
            "seconds": self.wall,
        }


@dataclass(frozen=True)
class Running:
    """A service in a process of its own."""

    process: subprocess.Popen[bytes]
    host: str
    port: int
    log: Path

    def memory(self) -> int:
        """Bytes resident."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def answered(self) -> int:
        """Explanations that its log says were given."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return sum(line.get("path") == _PATH and line["status"] == 200 for line in lines)


@contextmanager
def service(graph: Path, *options: str) -> Iterator[Running]:
    """`onnxplain serve`, ready; killed at the end if it still runs."""
    with scratch() as folder:
        log = folder / "log"
        command = ["-m", "onnxplain.cli", "serve", f"{NAME}={graph}", "--port", "0", "--preload"]
        with log.open("wb") as file:
            process = subprocess.Popen([sys.executable, *command, *options], stderr=file)
        try:
            url = urlsplit(_listening(process, log))
            assert url.hostname is not None
            assert url.port is not None
            yield Running(process, url.hostname, url.port, log)
        finally:
            process.kill()
            process.wait()


def _listening(process: subprocess.Popen[bytes], log: Path) -> str:
    """Where the service listens, once it takes requests."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        lines = log.read_text().splitlines()
        entries = [json.loads(line) for line in lines if line.startswith("{")]
        urls = [entry["url"] for entry in entries if entry["event"] == "listening"]
        if urls and any(entry["event"] == "Application startup complete." for entry in entries):
            return str(urls[0])
        time.sleep(0.1)
    raise SystemExit(f"the service did not start:\n{log.read_text()}")


def questions(graph: Path) -> list[Question]:
    """Photographs as JPEG files, with the runtime's own explanations of them."""
    from skimage import data

    explainer = onnxplain.load(graph, "cpu")
    asked = []
    for pixels in (data.chelsea(), data.coffee(), data.rocket(), data.astronaut()):
        encoded = io.BytesIO()
        Image.fromarray(pixels).resize((320, 240)).save(encoded, "JPEG", quality=90)
        explanation = explainer(Image.open(io.BytesIO(encoded.getvalue())))
        request = post_form(_PATH, encoded.getvalue(), {"output": "npz"})
        asked.append(Question(request, explanation.logits[0], explanation.pullback[0]))
    return asked


async def load(running: Running, asked: Sequence[Question], clients: int, seconds: float) -> Tally:
    """Clients that ask for so long; they stop when nobody listens any more."""
    tally, begin = Tally(), time.perf_counter()

    async def client(first: int) -> None:
        turns = itertools.cycle([*asked[first:], *asked[:first]])
        async with Client(running.host, running.port) as connection:
            for question in turns:
                start = time.perf_counter()
                if start - begin > seconds:
                    return
                try:
                    answer = await connection.send(question.request)
                except RefusedConnection:
                    return
                except (OSError, asyncio.IncompleteReadError):
                    tally.lost += 1
                    continue
                tally.statuses[answer.status] += 1
                if answer.status == 200:
                    tally.seconds.append(time.perf_counter() - start)
                    tally.error = float(np.maximum(tally.error, _error(answer.body, question)))
                await asyncio.sleep(answer.retry_after)

    await asyncio.gather(*(client(i % len(asked)) for i in range(clients)))
    tally.wall = time.perf_counter() - begin
    return tally


def _error(body: bytes, question: Question) -> float:
    arrays = np.load(io.BytesIO(body))
    pairs = ((arrays["logits"], question.logits), (arrays["pullback"][0], question.pullback))
    return max(float(np.abs(got - expected).max()) for got, expected in pairs)


async def _loaded(
    running: Running, asked: Sequence[Question], clients: int, seconds: float
) -> tuple[Tally, list[int]]:
    """`load`, and the service's memory second by second."""
    memory = []

    async def watch() -> None:
        while True:
            memory.append(running.memory())
            await asyncio.sleep(1)

    watching = asyncio.create_task(watch())
    tally = await load(running, asked, clients, seconds)
    watching.cancel()
    return tally, memory


async def _ended(
    running: Running, asked: Sequence[Question], clients: int, seconds: float
) -> dict[str, Any]:
    """`load`, with SIGTERM in the middle."""
    before = running.answered()
    loading = asyncio.create_task(load(running, asked, clients, seconds))
    await asyncio.sleep(seconds / 2)
    running.process.send_signal(signal.SIGTERM)
    told = time.perf_counter()
    tally = await loading
    status = await asyncio.to_thread(running.process.wait)
    return tally.summary() | {
        "exit_status": status,
        "seconds_to_end": time.perf_counter() - told,
        "answered by its log": running.answered() - before,
    }


def one_at_a_time(running: Running, asked: Sequence[Question], seconds: float) -> dict[str, Any]:
    """A loop of one client."""
    asyncio.run(load(running, asked, 1, _WARM_SECONDS))
    return asyncio.run(load(running, asked, 1, seconds)).summary()


def measure(graph: Path, clients: int, seconds: float) -> dict[str, Any]:
    """All of it; ready for JSON."""
    asked = questions(graph)
    short = min(seconds, 20.0)
    with service(graph, "--threads", str(threads()), "--instances", "1", "--batch", "1") as latency:
        alone = one_at_a_time(latency, asked, short)
    with service(graph) as running:
        single = one_at_a_time(running, asked, short)
        asyncio.run(load(running, asked, clients, _WARM_SECONDS))
        tally, memory = asyncio.run(_loaded(running, asked, clients, seconds))
        ended = asyncio.run(_ended(running, asked, clients, short))
    many = tally.summary()
    quarter = max(1, len(memory) // 4)
    return {
        "network": NAME,
        "clients": clients,
        "one at a time": single,
        "one at a time, a service set for it": alone,
        "many": many,
        "many ÷ one at a time": many["per_second"] / single["per_second"],
        "many ÷ one at a time, a service set for it": many["per_second"] / alone["per_second"],
        "memory_bytes": {
            "by second": memory,
            "second quarter": int(np.mean(memory[quarter : 2 * quarter])),
            "last quarter": int(np.mean(memory[-quarter:])),
        },
        "SIGTERM": ended,
        "machine": machine(),
    }


def holds(measured: Mapping[str, Any]) -> bool:
    """Whether the figures are what `onnxplain serve` promises."""
    names = ("one at a time", "one at a time, a service set for it", "many", "SIGTERM")
    memory, ended = measured["memory_bytes"], measured["SIGTERM"]
    return (
        all(_answered(measured[name]) for name in names)
        and measured["many ÷ one at a time"] >= LEAST_GAIN
        and memory["last quarter"] <= MOST_MEMORY * memory["second quarter"]
        and ended["exit_status"] == 0
        and ended["answered by its log"] == ended["statuses"]["200"]
    )


def _answered(tally: Mapping[str, Any]) -> bool:
    return (
        set(tally["statuses"]) <= {"200", "503"}
        and tally["lost"] == 0
        and tally["max_error"] <= MOST_ERROR
    )


@contextmanager
def served(graph: Path | None) -> Iterator[Path]:
    """The explain graph given; without one, EfficientNet-Lite0's, exported for that long."""
    with scratch() as folder:
        if graph is None:
            graph = folder / f"{NAME}.explain.onnx"
            export(NAME, graph, temperature=1.0)
        yield graph


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--graph", type=Path, help="of EfficientNet-Lite0; else it is exported")
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    with served(given.graph) as graph:
        measured = measure(graph, given.clients, given.seconds)
    with replacing(given.out) as beside:
        beside.write_text(json.dumps(measured, indent=1) + "\n")
    shown = {key: value for key, value in measured.items() if key not in ("machine",)}
    shown["memory_bytes"] = {k: v for k, v in shown["memory_bytes"].items() if k != "by second"}
    print(json.dumps(shown, indent=1))
    raise SystemExit(0 if holds(measured) else 1)


if __name__ == "__main__":
    main()
