"""Files that are replaced as a whole or not at all."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onnxplain.errors import InputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, which takes its place at the end.

    If what is done within fails or is interrupted, `path` stays as it was and nothing is left
    beside it.

    Raises:
        InputError: the path cannot be written.
    """
    beside = path.parent / f".{secrets.token_hex(8)}{path.suffix}"
    try:
        if not path.parent.is_dir():
            raise InputError(f"cannot write '{path}': there is no folder '{path.parent}'")
        if path.is_dir():
            raise InputError(f"cannot write '{path}': it is a folder")
        try:
            yield beside
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"cannot write '{path}': {error.strerror or error}") from error


def size_on_disk(path: Path) -> int:
    """Bytes of an explain graph, with the weights in `<name>.data` beside a very large one."""
    data = path.with_name(f"{path.name}.data")
    return path.stat().st_size + (data.stat().st_size if data.is_file() else 0)
