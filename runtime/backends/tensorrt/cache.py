"""Engines already built, and what else the compilers want to keep from one time to the next."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from onnxplain.errors import BackendError, InputError
from onnxplain.files import replacing
from onnxplain.runtime.backends.tensorrt.engine import SUFFIX, Engine, read_engine
from onnxplain.runtime.cache import cache_folder

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
            return read_engine(path)
        except BackendError as error:
            warnings.warn(f"a cached engine is not used and built anew: {error}", stacklevel=2)
    engine = build()
    save(path, engine.write)
    return engine


def hashed(key: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]


def save(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a path of the cache; that it fails is a warning."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
    except (OSError, InputError) as error:
        warnings.warn(f"the cache cannot be kept: {error}", stacklevel=2)


def load_bytes(path: Path) -> bytes:
    """What is kept there; nothing, where nothing is."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def save_bytes(path: Path, data: bytes) -> None:
    def write(path: Path) -> None:
        with replacing(path) as beside:
            beside.write_bytes(data)

    save(path, write)
