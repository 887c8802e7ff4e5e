"""The photographs of a search: a walk that keeps one folder's names in memory at a time."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from onnxplain.errors import InputError
from onnxplain.runtime.inputs.images import SUFFIXES, files_in

_REPORTED_EVERY = 1000


@dataclass(frozen=True)
class Listing:
    """How many images there are, and the SHA-256 of their paths, sizes and modification times."""

    count: int
    digest: str


def walk(inputs: Sequence[str]) -> Iterator[str]:
    """The image files of `inputs`, one at a time, always in the same order.

    The order is that of the inputs; within a folder, files come before folders, both sorted. A
    folder is searched recursively for files that have an image's suffix and are not hidden; a file
    given by name is taken whatever its suffix. Only the names in the current folder are in memory
    (about 80 bytes each).

    Args:
        inputs: files and folders.

    Raises:
        InputError: an input that does not exist, has no image, or lies within another; a folder
            that cannot be searched.
    """
    _check_apart(inputs)
    for given in inputs:
        found = False
        for file in _files(given) if os.path.exists(given) else ():
            found = True
            yield file
        if not found:
            raise InputError(f"no image found at '{given}'")


def list_images(
    inputs: Sequence[str], progress: Callable[[int], object] = lambda count: None
) -> Listing:
    """Count the images of `inputs`, without opening any.

    Args:
        progress: called from time to time with the number found so far.

    Raises:
        InputError: as `walk`; or there is no input.
    """
    if not inputs:
        raise InputError("no image given")
    digest, count = hashlib.sha256(), 0
    for file in walk(inputs):
        try:
            status = os.stat(file)
            stamp = f"\0{status.st_size}\0{status.st_mtime_ns}\n"
        except OSError:  # a dangling link: reported when it is read
            stamp = "\0\n"
        digest.update(os.fsencode(file) + stamp.encode())
        count += 1
        if count % _REPORTED_EVERY == 0:
            progress(count)
    return Listing(count, digest.hexdigest())


def _files(given: str) -> Iterator[str]:
    if os.path.isdir(given):
        yield from files_in(given, SUFFIXES)
    else:
        yield given


def _check_apart(inputs: Sequence[str]) -> None:
    """Check that no photograph is ranked twice because two inputs name it."""
    real = sorted((os.path.join(os.path.realpath(given), ""), given) for given in inputs)
    for (outer, first), (inner, second) in itertools.pairwise(real):
        if inner.startswith(outer):
            raise InputError(f"'{second}' lies within '{first}'; name it once")
