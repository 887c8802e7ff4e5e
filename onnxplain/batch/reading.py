"""The bytes of listed images, and the graph's input made from them."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from onnxplain.batch.listing import TABLE, Item
from onnxplain.batch.tables import Tables
from onnxplain.errors import InputError
from onnxplain.reading import opened
from onnxplain.runtime import Explainer, load_image
from onnxplain.runtime.inputs.batches import as_batch
from onnxplain.runtime.inputs.objective import as_inputs, on_photograph
from onnxplain.runtime.inputs.pixels import frame


@dataclass(frozen=True, eq=False)
class Prepared:
    """An image, or why it cannot be used.

    Attributes:
        error: None of an image.
        input: the graph's, without the batch.
        size: its width and height.
        inputs: what the objective takes besides, [1,…] by name.
    """

    error: str | None = None
    input: NDArray[Any] | None = None
    size: tuple[int, int] = (0, 0)
    inputs: Mapping[str, NDArray[Any]] = field(default_factory=dict)


def loads(items: Sequence[Item], tables: Tables) -> Iterator[Callable[[], bytes]]:
    """A function for each image that reads its bytes, in order.

    Those for files and tar files may be called from several threads. Rows of a table are read here,
    one after another. What cannot be read raises when called.
    """
    for file, group in groupby(items, key=lambda item: item.file):
        if Path(file).suffix.lower() == TABLE:
            yield from _rows(file, list(group), tables)
        else:
            yield from (partial(_span, file, item.offset, item.length) for item in group)


def prepare(explainer: Explainer, load: Callable[[], bytes], given: Mapping[str, Any]) -> Prepared:
    """Decode an image and turn it into what the graph takes.

    Args:
        given: what the objective takes besides, boxes in pixels of the image.
    """
    signature, metadata = explainer.backend.signature, explainer.metadata
    try:
        picture = load_image(io.BytesIO(load()))
        inputs = as_inputs(signature, on_photograph(metadata, given, picture.size), 1)
        if metadata.pixels:
            image: NDArray[Any] = frame(picture, metadata.pixels)
        else:
            (image,), _ = as_batch(picture, metadata.preprocessing, signature.dtype)
    except InputError as error:
        return Prepared(str(error))
    return Prepared(None, image, metadata.pixels.held(picture.size), inputs)


def _span(file: str, offset: int, length: int) -> bytes:
    try:
        with opened(file) as source:
            source.seek(offset)
            return source.read(length)
    except OSError as error:
        raise InputError(f"'{file}' cannot be read: {error.strerror}") from None


def _rows(file: str, items: list[Item], tables: Tables) -> Iterator[Callable[[], bytes]]:
    """The rows of a table, which are listed in sequence; an error fails all rows after it, too."""
    rows = tables.rows(file, items[0].offset, len(items))
    problem = ""
    for item in items:
        try:
            value = None if problem else next(rows, None)
        except InputError as error:
            problem = str(error)
            value = None
        yield partial(_given, value, problem or f"row {item.offset} of '{file}' has no image")


def _given(value: bytes | None, problem: str) -> bytes:
    if value is None:
        raise InputError(problem)
    return value
