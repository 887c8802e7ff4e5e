"""What an operator can set, and the defaults."""

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
"""A quota of CPU time and its period, in microseconds (Linux's cgroup-v2.rst)."""


@dataclass(frozen=True)
class Limits:
    """What a client may ask for; anything beyond is refused, never queued.

    Attributes:
        body_bytes: size of a request's body.
        held_bytes: total size of the bodies of all requests in progress, and of their images as
            their models take them and as pictures show them.
        pixels: size of an image, width × height.
        call_pixels: size of all images in one call together, as a network that takes any size sees
            them, each counted for each of its targets: time and memory grow with them.
        images: images × targets in one request.
        requests: requests that are accepted and not yet answered, for all models together.
        connections: connections open at a time.
        seconds: time from a request's arrival to its answer.
        read_seconds: time for a client to send its request's head, and then its body; also to
            accept some of an answer that is being sent.
    """

    body_bytes: int = 16 * MEBIBYTE
    held_bytes: int = 256 * MEBIBYTE
    pixels: int = 25_000_000
    call_pixels: int = 2_100_000
    images: int = 16
    requests: int = 256
    connections: int = 1024
    seconds: float = 30.0
    read_seconds: float = 10.0


@dataclass(frozen=True)
class Batching:
    """How requests are combined into calls of a backend.

    Attributes:
        images: the most images in one call.
        wait: for how many seconds the first image of a call waits for others while a backend is
            idle.
        instances: how many calls of one model run at a time.
    """

    images: int = 8
    wait: float = 0.002
    instances: int = 1


@dataclass(frozen=True)
class Running:
    """What runs the graphs; see `onnxplain.load`.

    Attributes:
        provider, precision: as `onnxplain.load` takes them.
        threads: CPU threads per call; None leaves the number to the backend.
        loaded: how many models are in memory at a time.
        preload: whether to load that many before the first request, instead of when first used.
        decoders: how many threads read requests and draw answers.
    """

    provider: str = "auto"
    precision: str = "float32"
    threads: int | None = None
    loaded: int = 4
    preload: bool = False
    decoders: int = field(default_factory=lambda: max(2, cores() // 2))


@dataclass(frozen=True)
class Settings:
    """The settings of a service.

    Attributes:
        models: name → explain graph or engine.
        token: the bearer token that clients must send; None lets everybody in.
        site: a folder written by `onnxplain web`, shown at `/`.
        hosts: the names by which clients may call the service; None for any.

    Raises:
        InputError: both a site and a token, or a token that no header carries.
    """

    models: dict[str, Path]
    limits: Limits = field(default_factory=Limits)
    batching: Batching = field(default_factory=Batching)
    running: Running = field(default_factory=Running)
    token: str | None = None
    site: Path | None = None
    hosts: frozenset[str] | None = None

    def __post_init__(self) -> None:
        if self.token is not None:
            _check_token(self.token)
        if self.site is not None and self.token is not None:
            raise InputError(
                "site= gives its model to everybody, and token= is to keep it: leave one out"
            )


def _check_token(token: str) -> None:
    """Raise InputError for one that clients cannot send."""
    if token == "":
        raise InputError("the token is empty; leave it out to let everybody in")
    if not (token.isascii() and token.isprintable() and token == token.strip()):
        raise InputError(
            "clients could not send this token in a header: it takes printable ASCII characters, "
            "with no space before or behind them"
        )


def cores() -> int:
    """How many of the machine's cores this process may use: a container's share, rounded up."""
    if sys.platform != "linux":
        return os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):  # "max 100000" if there is no quota
        quota, period = map(int, _QUOTA.read_text().split())
        return min(allowed, -(-quota // period))
    return allowed


def spread(
    provider: str, precision: str, threads: int | None, instances: int | None, images: int | None
) -> tuple[int | None, int, int]:
    """Threads per call, calls at a time and images per call, where an operator leaves them open.

    On a CPU, as many calls as there are cores, each with one thread and few images: threads of one
    call wait for each other, and the values of many images do not fit into the caches. (With
    EfficientNet-Lite0 on two cores, an image takes 1.2 times as long in a call of 8 as in two
    calls of 1.) On a GPU two calls, so that one is prepared while the other runs.
    """
    name = next(preferred(precision), "cpu") if provider == "auto" else provider
    if name != "cpu":
        return threads, instances or 2, images or 8
    threads = threads or max(1, cores() // (instances or cores()))
    return threads, instances or max(1, cores() // threads), images or 2
