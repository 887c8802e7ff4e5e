"""Batching: requests that come at the same time share one call of the backend."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from onnxplain.serve.settings import Batching

Explained = TypeVar("Explained", bound="Rows")


class Rows(Protocol):
    """What a call gives, a row for each image."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: slice, /) -> Self: ...


_SMOOTHING = 0.2  # weight of the newest call in the average time per image


@dataclass(frozen=True, eq=False)
class Work:
    """The images of one request.

    Attributes:
        batch: [N,…], as the graph takes it; one image N times may be a view of it.
        targets: [N], or [N,K] for a graph with several targets.
        temperature: None for the graph's own.
        inputs: what the objective takes besides, [N, …] by name.
        most: images of this size in one call, where the model limits these more than the batcher.
    """

    batch: NDArray[Any]
    targets: NDArray[np.int64]
    temperature: float | None = None
    inputs: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    most: int | None = None

    def __post_init__(self) -> None:
        given = self.targets, *self.inputs.values()
        # Or the others in its call would get wrong results:
        assert all(len(array) == len(self.batch) for array in given)

    def __len__(self) -> int:
        return len(self.batch)

    def fits(self, other: Work) -> bool:
        """Whether one call can explain both: photographs of one size, and as many targets."""
        mine, others = (
            (work.temperature, work.batch.shape[1:], work.targets.shape[1:])
            for work in (self, other)
        )
        return mine == others


@dataclass(eq=False)
class _Waiting(Generic[Explained]):
    work: Work
    since: float
    answer: asyncio.Future[Explained]


class Batcher(Generic[Explained]):
    """Passes a model's work to its backend, several requests in one call.

    A call is made once it is full, or once its oldest image has waited long enough and an instance
    is idle. While all instances are busy the images wait, so calls grow with the load.

    Args:
        run: explains what it is given, the requests' in one; called in threads.
        batching: how many images per call, how long to wait, and how many calls at a time.
        observe: called with each call's images and seconds, and the seconds each request waited.
    """

    def __init__(
        self,
        run: Callable[[Work], Explained],
        batching: Batching,
        observe: Callable[[int, float, list[float]], None],
    ) -> None:
        self._run = run
        self._most = batching.images
        self._wait = batching.wait
        self._instances = batching.instances
        self._observe = observe
        self._idle = asyncio.Semaphore(batching.instances)
        self._threads = ThreadPoolExecutor(batching.instances, "onnxplain-inference")
        self._queue: deque[_Waiting[Explained]] = deque()
        self._arrived = asyncio.Event()
        self._calls: set[asyncio.Task[None]] = set()
        self._image_seconds = 0.0
        self._dispatcher = asyncio.create_task(self._dispatch())

    @property
    def waiting(self) -> int:
        """How many images no call has taken yet."""
        return sum(len(waiting.work) for waiting in self._queue)

    def seconds_left(self) -> float:
        """About how many seconds the waiting images will take."""
        return self.waiting * self._image_seconds / self._instances

    async def explain(self, work: Work) -> Explained:
        """The explanation of these images, which may share a call with others.

        If cancelled while waiting, the images leave the queue.

        Raises:
            InputError, BackendError: what `run` raises.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(work, loop.time(), loop.create_future())
        self._queue.append(waiting)
        self._arrived.set()
        try:
            return await waiting.answer
        finally:
            with suppress(ValueError):
                self._queue.remove(waiting)

    def close(self) -> None:
        """Take no more work; running calls are left to finish."""
        self._dispatcher.cancel()
        self._threads.shutdown(wait=False)

    async def _dispatch(self) -> None:
        while True:
            await self._idle.acquire()
            taken = await self._collect()
            call = asyncio.create_task(self._call(taken))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    async def _collect(self) -> list[_Waiting[Explained]]:
        """The requests for the next call: the oldest, and those that fit with it."""
        loop = asyncio.get_running_loop()
        while True:
            while not self._queue:
                await self._news(None)
            first = self._queue[0]
            left = first.since + self._wait - loop.time()
            if left <= 0 or self.waiting >= self._room(first.work):
                return self._take()
            await self._news(left)

    def _room(self, work: Work) -> int:
        """How many images of its size one call takes."""
        return min(self._most, work.most or self._most)

    async def _news(self, seconds: float | None) -> None:
        self._arrived.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._arrived.wait(), seconds)

    def _take(self) -> list[_Waiting[Explained]]:
        first = self._queue[0]
        room = self._room(first.work)
        taken = []
        for waiting in list(self._queue):
            size = len(waiting.work)
            if waiting is first or (size <= room and waiting.work.fits(first.work)):
                taken.append(waiting)
                self._queue.remove(waiting)
                room -= size
            if room <= 0:
                break
        return taken

    async def _call(self, taken: list[_Waiting[Explained]]) -> None:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        try:
            explained = await loop.run_in_executor(
                self._threads, self._explain, [waiting.work for waiting in taken]
            )
        except Exception as error:  # whatever a backend raises goes to those who asked
            for waiting in taken:
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
            return
        finally:
            self._idle.release()
        seconds, images = loop.time() - begin, len(explained)
        newest = seconds / images - self._image_seconds
        self._image_seconds += newest * (_SMOOTHING if self._image_seconds else 1)
        self._observe(images, seconds, [begin - waiting.since for waiting in taken])
        start = 0
        for waiting in taken:
            own = slice(start, start := start + len(waiting.work))
            if not waiting.answer.done():  # its client may have gone
                waiting.answer.set_result(explained[own])

    def _explain(self, works: list[Work]) -> Explained:
        first = works[0]
        if len(works) == 1:
            return self._run(replace(first, batch=np.ascontiguousarray(first.batch)))
        inputs = {
            name: np.concatenate([work.inputs[name] for work in works]) for name in first.inputs
        }
        batch = np.concatenate([work.batch for work in works])
        targets = np.concatenate([work.targets for work in works])
        return self._run(Work(batch, targets, first.temperature, inputs, first.most))
