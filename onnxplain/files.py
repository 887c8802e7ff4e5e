"""Files that are replaced as a whole or not at all, and folders for what is in the making."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from onnxplain.errors import InputError
from onnxplain.reading import other_kind

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_NAME = re.compile(r"\.onnxplain-[0-9a-f]{16}")
_cleared: set[Path] = set()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, of the same name in a scratch folder beside, which takes its place at
    the end.

    If what is done within fails or is interrupted, `path` stays as it was and nothing is left
    beside it. If the process is killed, `path` stays as it was, and the scratch folder until the
    next file is written there. A link stays one: what it leads to is replaced.

    Raises:
        InputError: the path cannot be written, or is a folder, a pipe or a device.
    """
    try:
        place = Path(os.path.realpath(path)) if path.is_symlink() else path
        if not place.parent.is_dir():
            raise InputError(f"cannot write '{path}': there is no folder '{place.parent}'")
        check_replaceable(path)
        with scratch(place.parent) as folder:
            beside = folder / path.name
            yield beside
            beside.replace(place)
    except OSError as error:
        raise InputError(f"cannot write '{path}': {error.strerror or error}") from error


def make_folder(folder: Path) -> None:
    """Make a folder, and those that it lies in, unless it is there.

    Raises:
        InputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write into '{folder}': {error.strerror or error}") from error


def check_replaceable(path: Path) -> None:
    """
    Raises:
        InputError: there is a folder, a pipe or a device.
        OSError: what is there cannot be looked at.
    """
    with suppress(FileNotFoundError):
        if (kind := other_kind(path.stat())) is not None:
            raise InputError(f"cannot write '{path}': it is {kind}")


@contextmanager
def scratch(parent: Path | None = None) -> Iterator[Path]:
    """An empty folder, hidden, that is removed at the end.

    Its process holds a lock on it. So what processes left there that were killed is told from what
    others are using, and is removed when one makes its first folder in the same place (on Windows,
    which has no such locks, it stays).

    Args:
        parent: where; among the system's temporary files unless given.

    Raises:
        OSError: it cannot be made.
    """
    parent = (Path(tempfile.gettempdir()) if parent is None else parent).absolute()
    if parent not in _cleared:
        _cleared.add(parent)
        clear(parent)
    folder, lock = _made(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def clear(parent: Path) -> None:
    """Remove the scratch folders in a folder that nobody holds."""
    with suppress(OSError):
        left = [entry.path for entry in os.scandir(parent) if _NAME.fullmatch(entry.name)]
        for folder in map(Path, left):
            with suppress(OSError):
                lock = _locked(folder)
                if lock is not None:
                    shutil.rmtree(folder, ignore_errors=True)
                    os.close(lock)


def writable(path: str | os.PathLike[str], source: Any = None) -> Path:
    """The output path, checked before the long work.

    Args:
        source: what is read, which is not to be written over.

    Raises:
        InputError: it is a folder, lies in none that can be written, or is the source itself.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the file a name")
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: the folder {path.parent} does not exist")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"cannot write {path}: no permission in {path.parent}")
    is_file = isinstance(source, str | os.PathLike) and Path(source).exists()
    if is_file and path.exists() and path.samefile(source):
        raise InputError(f"{path} is the source itself; write elsewhere")
    return path


def size_on_disk(path: Path) -> int:
    """Bytes of an explain graph, with the weights in `<name>.data` beside a very large one."""
    data = path.with_name(f"{path.name}.data")
    return path.stat().st_size + (data.stat().st_size if data.is_file() else 0)


def _made(parent: Path) -> tuple[Path, int | None]:
    """A new folder and the lock on it."""
    while True:
        folder = parent / f".onnxplain-{secrets.token_hex(8)}"
        folder.mkdir(0o700)
        try:
            lock = _locked(folder)
        except BlockingIOError:  # somebody clears, and took it for left
            continue
        if folder.exists():
            return folder, lock
        if lock is not None:
            os.close(lock)


def _locked(folder: Path) -> int | None:
    """What holds the lock on a folder until it is closed; None where folders have no locks.

    Raises:
        BlockingIOError: another holds it, or the folder is gone.
    """
    if fcntl is None:
        return None
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError as error:
        raise BlockingIOError from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise
    except OSError:  # a network's file system
        os.close(handle)
        return None
    return handle
