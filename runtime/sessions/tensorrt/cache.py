"""Engines already built."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from onnxplain.errors import BackendError
from onnxplain.runtime.cache import cache_folder, hashed, keep, used
from onnxplain.runtime.sessions.tensorrt.engine import SUFFIX, Engine, read_engine

KIND = "engines"
"""The name of the folder in the cache."""


def cached(key: dict[str, Any], build: Callable[[], Engine]) -> Engine:
    """The engine built before for the same `key`, or a new one.

    `key` says all that the engine depends on: graph, package, version, GPU, precision, profile.
    A file that is damaged or of another format is built again, with a warning; so is a cache that
    cannot be written warned of, no more.
    """
    path = cache_folder(KIND) / (hashed(key) + SUFFIX)
    if path.exists():
        try:
            engine = read_engine(path)
        except BackendError as error:
            warnings.warn(f"a cached engine is not used and built anew: {error}", stacklevel=2)
        else:
            used(path)
            return engine
    engine = build()
    keep(path, engine.write)
    return engine
