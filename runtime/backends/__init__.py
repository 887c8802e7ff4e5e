"""What runs an explain graph, one file per runtime.

A new backend is a class with the members of `Backend`, and one line in `_BACKENDS`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from onnxplain.errors import BackendError
from onnxplain.runtime.backends.onnx_runtime import OnnxRuntimeCPU
from onnxplain.runtime.backends.protocol import Backend

__all__ = ["Backend", "open_backend"]

_BACKENDS: dict[str, Callable[[Path, int | None], Backend]] = {"cpu": OnnxRuntimeCPU}


def open_backend(
    path: str | os.PathLike[str], provider: str = "auto", threads: int | None = None
) -> Backend:
    """Make the explain graph at `path` ready to run.

    Args:
        path: an ONNX file written by `onnxplain.export`.
        provider: "cpu", or "auto" for the fastest present.
        threads: threads within one operator; None leaves the number to the backend.

    Raises:
        BackendError: an unknown provider, or a file that it cannot run.
    """
    known = ["auto", *_BACKENDS]
    if provider not in known:
        raise BackendError(f"unknown provider '{provider}'; known: {', '.join(known)}")
    if threads is not None and threads < 1:
        raise BackendError(f"threads must be at least 1, not {threads}")
    return _BACKENDS["cpu" if provider == "auto" else provider](Path(path), threads)
