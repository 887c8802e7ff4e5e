"""Threads for decoding requests and drawing answers, which are neither network nor inference."""

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

_NICER = 5  # than inference, which must not wait for a core because images are being decoded


class Pool:
    """A fixed number of threads, with lower priority where the system supports that."""

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, "onnxplain-decode", _yield_to_inference)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function in one of the threads and return its result."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: function(*args, **kwargs))

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _yield_to_inference() -> None:
    if sys.platform == "linux":  # where threads have their own priority
        thread = threading.get_native_id()
        with suppress(OSError):
            niceness = os.getpriority(os.PRIO_PROCESS, thread) + _NICER
            os.setpriority(os.PRIO_PROCESS, thread, niceness)
