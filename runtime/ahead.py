"""Work done on other threads before its result is asked for, and not too long before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

Result = TypeVar("Result")


def ahead(pool: Executor, calls: Iterable[Callable[[], Result]], count: int) -> Iterator[Result]:
    """The results of the calls in their order, with at most `count` begun and not yet taken.

    If the iterable of calls fails, what was begun is given before its error is raised.
    """
    running: deque[Future[Result]] = deque()
    failure: Exception | None = None
    try:
        for call in calls:
            running.append(pool.submit(call))
            if len(running) > count:
                yield running.popleft().result()
    except Exception as error:
        failure = error
    while running:
        yield running.popleft().result()
    if failure is not None:
        raise failure
