"""Dynamic batching: what is put together, when, and who gets what."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace

import numpy as np
import pytest

from onnxplain.errors import BackendError
from onnxplain.serve.batcher import Batcher, Work
from onnxplain.serve.settings import Batching


class Answer:
    """Arrays with a row for each image."""

    def __init__(self, *arrays) -> None:
        self.arrays = arrays

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, index: slice) -> Answer:
        return Answer(*(array[index] for array in self.arrays))

    def __iter__(self):
        return iter(self.arrays)


class Backend:
    """Squares; holds every call until it is let go."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, float | None]] = []
        self.go = threading.Event()
        self.go.set()

    def run(self, work):
        batch = work.batch
        assert batch.flags.c_contiguous
        self.calls.append((len(batch), work.temperature))
        self.go.wait(10)
        if (batch < 0).any():
            raise BackendError("negative")
        return Answer(batch.sum(axis=(1, 2, 3))[:, None], batch**2, work.targets)


def work(value: float, images: int = 1, temperature: float | None = None, k: int = 0) -> Work:
    batch = np.full((images, 1, 2, 2), value, np.float32)
    return Work(batch, np.zeros((images, k) if k else images, np.int64), temperature)


def batched(
    test: Callable[[Backend, Batcher], Awaitable[None]],
    images: int = 4,
    wait: float = 0.05,
    instances: int = 1,
) -> tuple[Backend, list[int]]:
    """Runs a test of a batcher; returns the backend, and the images of each call observed."""
    backend, observed = Backend(), []

    async def main() -> None:
        batcher = Batcher(
            backend.run,
            Batching(images, wait, instances),
            lambda images, seconds, waited: observed.append(images),
        )
        async with asyncio.timeout(20):
            await test(backend, batcher)
        batcher.close()

    asyncio.run(main())
    return backend, observed


def test_requests_that_come_together_are_one_call_and_each_gets_its_own():
    async def test(backend, batcher):
        answers = await asyncio.gather(*(batcher.explain(work(value)) for value in (1, 2, 3, 4)))
        for value, (logits, pullback, targets) in zip((1, 2, 3, 4), answers, strict=True):
            assert logits.tolist() == [[4 * value]]
            assert (pullback == value**2).all()
            assert targets.shape == (1,)

    backend, observed = batched(test)
    assert backend.calls == [(4, None)]
    assert observed == [4]


def test_a_lonely_request_waits_no_longer_than_told():
    async def test(backend, batcher):
        begin = asyncio.get_running_loop().time()
        await batcher.explain(work(1))
        assert 0.2 <= asyncio.get_running_loop().time() - begin < 5

    backend, _ = batched(test, wait=0.2)
    assert backend.calls == [(1, None)]


def test_a_full_call_does_not_wait():
    async def test(backend, batcher):
        await asyncio.gather(*(batcher.explain(work(1)) for _ in range(4)))

    batched(test, wait=1000)


def test_while_the_backend_is_busy_requests_gather():
    async def test(backend, batcher):
        backend.go.clear()
        first = asyncio.create_task(batcher.explain(work(1)))
        while not backend.calls:
            await asyncio.sleep(0.01)
        others = [asyncio.create_task(batcher.explain(work(2))) for _ in range(6)]
        await asyncio.sleep(0.05)
        assert batcher.waiting == 6
        backend.go.set()
        await asyncio.gather(first, *others)

    backend, _ = batched(test, wait=0)
    assert backend.calls == [(1, None), (4, None), (2, None)]


def test_instances_run_at_the_same_time():
    async def test(backend, batcher):
        backend.go.clear()
        both = [asyncio.create_task(batcher.explain(work(1, images=4))) for _ in range(2)]
        while len(backend.calls) < 2:
            await asyncio.sleep(0.01)
        backend.go.set()
        await asyncio.gather(*both)

    backend, _ = batched(test, instances=2)
    assert backend.calls == [(4, None), (4, None)]


def test_other_temperatures_and_numbers_of_targets_are_other_calls():
    async def test(backend, batcher):
        await asyncio.gather(
            *(
                batcher.explain(work(1, temperature=t, k=k))
                for t, k in ((0.5, 1), (1.0, 1), (0.5, 1), (0.5, 2))
            )
        )

    backend, _ = batched(test, wait=0.05)
    assert backend.calls == [(2, 0.5), (1, 1.0), (1, 0.5)]


def test_a_request_is_never_split_and_one_larger_than_a_call_goes_alone():
    async def test(backend, batcher):
        sizes = (3, 2, 1, 9)
        answers = await asyncio.gather(*(batcher.explain(work(n, images=n)) for n in sizes))
        for size, (logits, _, _) in zip(sizes, answers, strict=True):
            assert logits.tolist() == [[4 * size]] * size

    backend, _ = batched(test)
    assert sorted(images for images, _ in backend.calls) == [2, 4, 9]


def test_large_images_share_a_call_only_as_far_as_it_may_see_them():
    async def test(backend, batcher):
        large = [replace(work(1), most=2) for _ in range(5)]
        await asyncio.gather(*map(batcher.explain, large))

    backend, _ = batched(test, images=8)
    assert backend.calls == [(2, None), (2, None), (1, None)]


def test_a_call_that_may_see_no_more_does_not_wait_for_more():
    async def test(backend, batcher):
        large = [replace(work(1), most=2) for _ in range(2)]
        await asyncio.wait_for(asyncio.gather(*map(batcher.explain, large)), 10)

    backend, _ = batched(test, images=8, wait=60)
    assert backend.calls == [(2, None)]


def test_a_view_of_one_image_reaches_the_backend_as_images_of_their_own():
    async def test(backend, batcher):
        view = np.broadcast_to(np.full((1, 1, 2, 2), 3, np.float32), (5, 1, 2, 2))
        logits, _, _ = await batcher.explain(Work(view, np.zeros(5, np.int64)))
        assert logits.tolist() == [[12]] * 5

    batched(test)


def test_an_error_reaches_all_of_its_call_and_no_other():
    async def test(backend, batcher):
        asked = [batcher.explain(work(value)) for value in (1, -1)]
        failed = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(error) for error in failed] == [BackendError, BackendError]
        logits, _, _ = await batcher.explain(work(5))
        assert logits.tolist() == [[20]]

    batched(test)


def test_who_does_not_wait_any_more_leaves_the_queue():
    async def test(backend, batcher):
        backend.go.clear()
        first = asyncio.create_task(batcher.explain(work(1)))
        while not backend.calls:
            await asyncio.sleep(0.01)
        gone = asyncio.create_task(batcher.explain(work(2)))
        stays = asyncio.create_task(batcher.explain(work(3)))
        await asyncio.sleep(0.01)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        first.cancel()  # while its call runs
        backend.go.set()
        logits, _, _ = await stays
        assert logits.tolist() == [[12]]

    backend, _ = batched(test, wait=0)
    assert backend.calls == [(1, None), (1, None)]


def test_it_says_how_long_what_waits_will_take():
    async def test(backend, batcher):
        assert batcher.seconds_left() == 0
        await batcher.explain(work(1))
        backend.go.clear()
        tasks = [asyncio.create_task(batcher.explain(work(1, images=4))) for _ in range(3)]
        await asyncio.sleep(0.05)
        assert batcher.waiting == 8
        assert 0 < batcher.seconds_left() < 10
        backend.go.set()
        await asyncio.gather(*tasks)
        assert batcher.seconds_left() == 0

    batched(test, wait=0)
