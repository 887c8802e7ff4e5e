"""Where the runtimes keep what they compiled, from one time to the next.

What is kept is machine code, and no compiler reads a damaged file safely: so each file begins with
the SHA-256 of the rest, and one that does not agree is never handed on. What was used longest ago
makes room for what is new.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from onnxplain.errors import InputError
from onnxplain.files import replacing
from onnxplain.reading import opened

_DIGEST = 32  # bytes of SHA-256
_ROOM = 8 << 30  # bytes of one kind; a compiled ViT-B takes 0.4 GB


def cache_folder(kind: str) -> Path:
    """`$XDG_CACHE_HOME/onnxplain/KIND`, or the same under `~/.cache`; always safe to delete."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "onnxplain" / kind


def hashed(key: Any) -> str:
    """A file's name, for all that its content depends on."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]


def load(path: Path) -> bytes | None:
    """What `save` kept there; None where nothing is, and with a warning where it is damaged."""
    try:
        with opened(path) as file:
            written, data = file.read(_DIGEST), file.read()
    except OSError:
        return None
    if hashlib.sha256(data).digest() == written:
        used(path)
        return data
    warnings.warn(f"'{path}' is damaged, and made anew", stacklevel=2)
    return None


def save(path: Path, data: bytes) -> None:
    """Keep it; that it cannot be kept is a warning."""

    def write(path: Path) -> None:
        with replacing(path) as beside, beside.open("wb") as file:
            file.write(hashlib.sha256(data).digest())
            file.write(data)

    keep(path, write)


def keep(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a path of the cache; that it fails is a warning."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
        make_room(path)
    except (OSError, InputError) as error:
        warnings.warn(f"the cache cannot be kept: {error}", stacklevel=3)


def used(path: Path) -> None:
    """That it was, just now; a cache that cannot be written stays as it is."""
    with suppress(OSError):
        os.utime(path)


def make_room(new: Path) -> None:
    """Delete what was used longest ago beside a new file, until all with it is no more than _ROOM.

    Several processes may do so at once: a file that is gone has made its room.
    """
    kept = []
    for path in new.parent.iterdir():
        with suppress(OSError):
            found = path.stat()
            kept.append((found.st_mtime_ns, found.st_size, path))
    over = sum(size for _, size, _ in kept) - _ROOM
    for _, size, path in sorted(kept):
        if over <= 0:
            return
        if path != new:
            with suppress(OSError):
                path.unlink(missing_ok=True)
                over -= size
