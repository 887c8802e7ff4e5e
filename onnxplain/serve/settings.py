"""What an operator can set, and what holds when they do not."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from onnxplain.errors import InputError
from onnxplain.runtime.sessions import preferred

MEBIBYTE = 1 << 20

_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Microseconds of the processor's time in each period of so many (Linux's cgroup-v2.rst)."""


@dataclass(frozen=True)
class Limits:
    """What a client may ask for; what is above is refused, never queued.

    Attributes:
        body_bytes: of a request's body.
        held_bytes: of the bodies of all requests in hand together.
        pixels: of an image, width × height.
        images: images × targets of one request.
        requests: accepted and not yet answered, of all models together.
        connections: open at a time.
        seconds: from a request's arrival to its answer.
        read_seconds: for a client to send its request's head, and then its body; and for it to
            take some of an answer that waits to be sent.
    """

    body_bytes: int = 16 * MEBIBYTE
    held_bytes: int = 256 * MEBIBYTE
    pixels: int = 25_000_000
    images: int = 16
    requests: int = 256
    connections: int = 1024
    seconds: float = 30.0
    read_seconds: float = 10.0


@dataclass(frozen=True)
class Batching:
    """How requests are put together into calls of a backend.

    Attributes:
        images: of one call at most.
        wait: seconds that the first image of a call waits for others, while a backend is idle.
        instances: calls of one model at a time.
    """

    images: int = 8
    wait: float = 0.002
    instances: int = 1


@dataclass(frozen=True)
class Running:
    """What runs the graphs; see `onnxplain.load`.

    Attributes:
        provider, precision: as `onnxplain.load` takes them.
        threads: of the processor, per call; None leaves the number to the backend.
        loaded: models in memory at a time.
        preload: load as many as that before the first request is taken, not when first asked for.
        decoders: threads that read requests and draw answers.
    """

    provider: str = "auto"
    precision: str = "float32"
    threads: int | None = None
    loaded: int = 4
    preload: bool = False
    decoders: int = field(default_factory=lambda: max(2, cores() // 2))


@dataclass(frozen=True)
class Settings:
    """Of a service.

    Attributes:
        models: name → explain graph or engine.
        token: what clients must send as a bearer token; None lets everybody in.
        site: a folder written by `onnxplain web`, shown at `/`.

    Raises:
        InputError: a site and a token.
    """

    models: dict[str, Path]
    limits: Limits = field(default_factory=Limits)
    batching: Batching = field(default_factory=Batching)
    running: Running = field(default_factory=Running)
    token: str | None = None
    site: Path | None = None

    def __post_init__(self) -> None:
        if self.site is not None and self.token is not None:
            raise InputError(
                "--site brings its model to everybody, and --token is to keep it: leave one out"
            )


def cores() -> int:
    """How many of the machine's this process may use: a container's share rounded up."""
    if sys.platform != "linux":
        return os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):  # "max 100000" where there is no quota
        quota, period = map(int, _QUOTA.read_text().split())
        return min(allowed, -(-quota // period))
    return allowed


def spread(
    provider: str, precision: str, threads: int | None, instances: int | None, images: int | None
) -> tuple[int | None, int, int]:
    """Threads of a call, calls at a time and images of a call, where an operator leaves them open.

    On a processor, as many calls as it has cores, of one thread and few images each: threads of one
    call wait for each other, and the values of many images leave the caches. (EfficientNet-Lite0
    on two cores: a call of 8 images takes 1.2 times as long for each as two calls of 1.) On a GPU
    two, so that one is prepared while the other runs.
    """
    name = next(preferred(precision), "cpu") if provider == "auto" else provider
    if name != "cpu":
        return threads, instances or 2, images or 8
    threads = threads or max(1, cores() // (instances or cores()))
    return threads, instances or max(1, cores() // threads), images or 2
