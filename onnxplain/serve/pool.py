"""Threads for what is neither network nor inference: decoding requests and drawing answers."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_NICER = 5  # than inference, which must not wait for a processor because images are decoded


class Pool:
    """A fixed number of threads, of lower priority than the others where the system has that."""

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, "onnxplain-decode", _yield_to_inference)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What the function returns, called in one of the threads."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: function(*args, **kwargs))

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _yield_to_inference() -> None:
    if sys.platform == "linux":  # where a thread has a priority of its own
        thread = threading.get_native_id()
        with suppress(OSError):
            niceness = os.getpriority(os.PRIO_PROCESS, thread) + _NICER
            os.setpriority(os.PRIO_PROCESS, thread, niceness)
