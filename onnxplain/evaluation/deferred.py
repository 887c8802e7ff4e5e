"""Answers of a network that are computed together, when the first of them is looked at.

Quantus asks a network once for each perturbed image, puts the answers into a list, and looks at
them when the list is full. So whoever hands out answers that are not computed yet can run all of
the images at once: nothing of Quantus's loops has to be written again.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import NDArray

Array = NDArray[Any]


class Deferred(NDArrayOperatorsMixin):
    """An array that is computed when it is looked at. Its parts and differences are so too."""

    def __init__(self, compute: Callable[[], Array]) -> None:
        self._compute: Callable[[], Array] | None = compute
        self._value: Array | None = None

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if self._compute is not None:
            self._value, self._compute = self._compute(), None
        assert self._value is not None
        return np.array(self._value, dtype, copy=copy)

    def __getitem__(self, key: Any) -> Deferred:
        return Deferred(lambda: np.asarray(self)[key])

    def __sub__(self, other: Any) -> Deferred:
        return Deferred(lambda: np.asarray(self) - np.asarray(other))

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **given: Any) -> Any:
        arrays = (np.asarray(one) if isinstance(one, Deferred) else one for one in inputs)
        return getattr(ufunc, method)(*arrays, **given)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(np.asarray(self), name)


class Remembered:
    """A function of images that runs what it was not asked lately.

    Many metrics disturb an image alike for each explanation of a network, as their random numbers
    are by image and metric: one run answers for all explanations.

    Args:
        run: images [N, …] to rows [N, …].
        most: so many rows are kept, those asked for last.
    """

    def __init__(self, run: Callable[[Array], Array], most: int) -> None:
        self._run, self._most = run, most
        self._rows: OrderedDict[bytes, Array] = OrderedDict()

    def __call__(self, images: Array) -> Array:
        keys = [hashlib.sha256(image.tobytes()).digest() for image in images]
        new = {key: i for i, key in enumerate(keys) if key not in self._rows}
        if new:
            made = self._run(images[list(new.values())])
            self._rows.update(zip(new, made, strict=True))
        for key in keys:
            self._rows.move_to_end(key)
        rows = np.stack([self._rows[key] for key in keys])
        while len(self._rows) > self._most:
            self._rows.popitem(last=False)
        return rows


class Together:
    """A function of images whose answers are deferred, and computed in batches.

    Args:
        run: images [N, …] to rows [N, …].
        most: so many images wait at most, and are run at once.
    """

    def __init__(self, run: Callable[[Array], Array], most: int) -> None:
        self._run, self._most = run, most
        self._batch = _Batch(run)

    def __call__(self, images: Array) -> Deferred:
        if self._batch.done:
            self._batch = _Batch(self._run)
        batch = self._batch
        rows = batch.add(images)
        if batch.waiting >= self._most:
            batch.rows()
        return Deferred(lambda: batch.rows()[rows])


class _Batch:
    def __init__(self, run: Callable[[Array], Array]) -> None:
        self._run = run
        self._images: list[Array] = []
        self._rows: Array | None = None
        self.waiting = 0

    @property
    def done(self) -> bool:
        return self._rows is not None

    def add(self, images: Array) -> slice:
        begin = self.waiting
        self._images.append(images)
        self.waiting += len(images)
        return slice(begin, self.waiting)

    def rows(self) -> Array:
        if self._rows is None:
            self._rows = self._run(np.concatenate(self._images))
            self._images.clear()
        return self._rows
