"""A compiled model's inference requests, one for each caller at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from onnxplain.errors import BackendError

_OUT_OF_MEMORY = ("bad_alloc", "Cannot allocate")


class Requests:
    """As many requests as there were callers at once.

    `used` says whether there was one.

    Args:
        compiled: the `openvino.CompiledModel`.
    """

    def __init__(self, compiled: Any) -> None:
        self.used = False
        self._compiled = compiled
        self._idle: deque[Any] = deque([compiled.create_infer_request()])

    @contextmanager
    def one(self) -> Iterator[Any]:
        """One that nobody else uses; if a call fails in it, it is not used again."""
        self.used = True
        try:
            request = self._idle.pop()
        except IndexError:
            with failures():
                request = self._compiled.create_infer_request()
        try:
            yield request
        except Exception:
            self._recover()
            raise
        self._idle.append(request)

    def _recover(self) -> None:
        """After a failure, run zeros of two sizes.

        A call that fails between two nodes leaves the compiled model (OpenVINO 2026.4) unable to
        run inputs of the same shapes, until it has run others.
        """
        for size in (1, 2):
            zeros = [
                np.zeros(
                    [n.get_length() if n.is_static else size for n in port.get_partial_shape()],
                    port.get_element_type().to_dtype(),
                )
                for port in self._compiled.inputs
            ]
            with suppress(RuntimeError, MemoryError):
                self._compiled.create_infer_request().infer(zeros)


@contextmanager
def failures() -> Iterator[None]:
    """OpenVINO's errors as ours."""
    try:
        yield
    except (RuntimeError, TypeError, ValueError, MemoryError) as error:
        if isinstance(error, MemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY):
            message = f"not enough memory; run smaller batches: {error}"
        else:
            message = f"OpenVINO failed: {error}"
        raise BackendError(message) from error
