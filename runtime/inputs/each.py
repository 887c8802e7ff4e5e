"""Whatever holds pictures, as one picture or batch after the other."""

from __future__ import annotations

import glob
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxplain.errors import InputError
from onnxplain.runtime.inputs.images import find_images
from onnxplain.runtime.inputs.tensors import as_numpy, is_tensor, on_host

_CHANNELS = (1, 3, 4)
_SECONDS = 0.2  # between two lines of a meter


def each(images: Any) -> Iterator[Any]:
    """Paths, PIL images and arrays, one after the other; nothing is read ahead.

    A folder's or a pattern's images are files. Of anything that can be iterated over, each item is
    taken so; of a tuple or list within, as data loaders give, the first alone. A tensor of the
    processor is an array, uint8 pixels with channels first are turned.

    Raises:
        InputError: what is none of this; a tensor of another device; a folder without images.
    """
    if isinstance(images, str | os.PathLike):
        yield from _files(images)
    elif is_tensor(images):
        yield _array(images)
    elif isinstance(images, np.ndarray | Image.Image):
        yield images
    elif isinstance(images, Iterable) and not isinstance(images, bytes | dict):
        for item in images:
            yield from each(item[0] if isinstance(item, tuple | list) and len(item) else item)
    else:
        raise InputError(
            "images are paths, folders, patterns, PIL images, numpy arrays, tensors or what gives "
            f"such one by one; not a {type(images).__name__}"
        )


def _files(path: str | os.PathLike[str]) -> list[Any]:
    """The images of a folder or a pattern; any other path as it is."""
    several = Path(path).is_dir() or (glob.has_magic(os.fspath(path)) and not Path(path).exists())
    return [*find_images(path)] if several else [path]


def _array(tensor: Any) -> NDArray[Any]:
    if not on_host(tensor):
        raise InputError(
            "a tensor on another device is explained by itself, as the network takes it, [N,C,H,W]"
        )
    try:
        array = as_numpy(tensor)
    except (BufferError, TypeError, RuntimeError) as error:
        raise InputError(f"the tensor cannot be read: {error}") from error
    first = array.ndim > 2 and array.shape[-3] in _CHANNELS and array.shape[-1] not in _CHANNELS
    return np.moveaxis(array, -3, -1) if array.dtype == np.uint8 and first else array


def images_in(item: Any) -> int:
    """How many an item of `each` holds."""
    return len(item) if isinstance(item, np.ndarray) and item.ndim == 4 else 1


def metered(images: Any, wanted: bool | None = None) -> Any:
    """The same, with a line on standard error that says how many there were; it is gone at the end.

    Args:
        wanted: None for a terminal alone.
    """
    if isinstance(images, np.ndarray | Image.Image) or is_tensor(images):
        return images
    items = _files(images) if isinstance(images, str | os.PathLike) else images
    return _metered(items) if (sys.stderr.isatty() if wanted is None else wanted) else items


def _metered(items: Iterable[Any]) -> Iterator[Any]:
    of = f" of {len(items)}" if isinstance(items, Sized) else ""
    start = shown = time.monotonic()
    try:
        for done, item in enumerate(items, 1):
            yield item
            if (now := time.monotonic()) - shown >= _SECONDS:
                shown = now
                sys.stderr.write(f"\r{done}{of} explained, {done / (now - start):.1f}/s\x1b[K")
                sys.stderr.flush()
    finally:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
