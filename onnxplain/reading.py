"""The one door for files from elsewhere: regular ones, of bounded size, where they may be.

Whatever is refused raises an OSError whose `strerror` says why, so that each caller words it as it
words a file that is missing.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import stat
from contextvars import ContextVar
from io import BufferedReader
from pathlib import Path
from typing import Any

TEXT = 64 << 20
"""The most bytes of a file of settings, labels or figures."""

trusted: ContextVar[bool] = ContextVar("trusted", default=False)
"""Whether files with which their author can run code are loaded: `onnxplain --trust`."""


class NotAFileError(OSError):
    """A folder, pipe, socket or device where a file should be; or a file that is too large."""


_KINDS = {
    **{stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"},
    **{stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"},
}
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def opened(path: str | os.PathLike[str], most: int | None = None) -> BufferedReader:
    """A regular file, opened for reading; no pipe is waited for, and no device is read.

    Args:
        most: bytes that it may have.

    Raises:
        OSError: there is none, or it may not be read.
        NotAFileError: it is of another kind, or larger.
    """
    handle = os.open(path, _FLAGS)  # without blocking, which a pipe without a writer would
    try:
        status = os.fstat(handle)
        if (kind := other_kind(status)) is not None:
            raise NotAFileError(errno.EINVAL, f"it is {kind}, not a file", os.fspath(path))
        if most is not None and status.st_size > most:
            too_large = f"it has {status.st_size:,} bytes, of at most {most:,}"
            raise NotAFileError(errno.EFBIG, too_large, os.fspath(path))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def sha256(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file, as hexadecimal.

    Raises:
        OSError: as `opened` does.
    """
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def other_kind(status: os.stat_result) -> str | None:
    """What a file is that is not a regular one: "a folder", "a pipe" …; None of a regular one."""
    if stat.S_ISREG(status.st_mode):
        return None
    return _KINDS.get(stat.S_IFMT(status.st_mode), "something else")


def regular(path: str | os.PathLike[str]) -> None:
    """Check what a library will open by its path.

    Raises:
        OSError: as `opened` does.
    """
    opened(path).close()


def unreadable(path: str | os.PathLike[str]) -> str | None:
    """Why what is there is no file to read: "no such file: 'a.onnx'"; None of one that is."""
    try:
        regular(path)
    except (FileNotFoundError, ValueError):  # such as a name with a zero byte
        return f"no such file: '{os.fspath(path)}'"
    except OSError as error:
        return f"'{os.fspath(path)}' cannot be read: {error.strerror}"
    return None


def text(path: str | os.PathLike[str]) -> str:
    """What a file of text holds, UTF-8, of at most `TEXT` bytes.

    Raises:
        OSError: as `opened` does.
        UnicodeDecodeError: it is something else.
    """
    with opened(path, TEXT) as file:
        return file.read().decode("utf-8")


def parsed(text: str | bytes) -> Any:
    """What JSON says.

    Raises:
        ValueError: it is none, or lists within lists too deep to be read.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("its lists lie in one another too deep to be read") from error


def beside(model: Path, location: str) -> Path:
    """The file where a model keeps weights: regular, and in the model's folder or below it.

    Args:
        model: the model's file.
        location: the other's path as the model has it, which links may lead elsewhere.

    Raises:
        OSError: there is none, it is of another kind, or it lies outside.
    """
    folder = model.parent.resolve()
    file = (folder / location).resolve()
    if not file.is_relative_to(folder):
        outside = f"it lies outside the folder '{folder}', where alone a model's weights may be"
        raise OSError(errno.EACCES, outside, location)
    regular(file)
    return file


def matching(pattern: str | os.PathLike[str]) -> list[Path]:
    """The files and folders that match a glob pattern, sorted; hidden ones only where it says so.

    `**` stands for any depth of folders, and does not enter those that are links: they may lead
    back to where they are.
    """
    parts = Path(pattern).parts
    first = next((i for i, part in enumerate(parts) if part == "**"), None)
    if first is None:
        return sorted(map(Path, glob.glob(os.fspath(pattern))))
    found = set()
    rest = Path(*parts[first + 1 :])
    for root in glob.glob(os.fspath(Path(*parts[:first]))):
        for folder, folders, files in os.walk(root):
            folders[:] = [name for name in folders if not name.startswith(".")]
            if rest.parts:
                found.update(matching(Path(glob.escape(folder)) / rest))
            else:
                visible = (name for name in files if not name.startswith("."))
                found.update(Path(folder) / name for name in ("", *folders, *visible))
    return sorted(found)
