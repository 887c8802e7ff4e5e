"""A model packaged for the servers that operators run: Triton, KServe, a container."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onnxplain.errors import InputError
from onnxplain.files import scratch

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def model_name(path: Path, given: str | None) -> str:
    """A model's name: the given one, or one made from its file's.

    Raises:
        InputError: not a name for Kubernetes (RFC 1123: lower case, digits, hyphens).
    """
    name = path.name.split(".")[0].lower().replace("_", "-") if given is None else given
    if not _NAME.fullmatch(name):
        raise InputError(
            f"a model's name has lower-case letters, digits and hyphens, unlike {name!r}: give one "
            "with name="
        )
    return name


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to write into, which is moved into place at the end, or else removed.

    Raises:
        InputError: something is there already, or it cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"'{folder}' is there already: remove it, or name another")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with scratch(folder.parent) as temporary:
            beside = temporary / folder.name
            beside.mkdir()
            yield beside
            beside.replace(folder)
    except OSError as error:
        raise InputError(f"cannot write '{folder}': {error.strerror or error}") from error
