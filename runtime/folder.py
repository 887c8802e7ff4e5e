"""Many files explained at the backend's own pace: decoding and drawing go on beside it."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxplain.contract.explain import Metadata
from onnxplain.errors import BackendError, InputError
from onnxplain.runtime.ahead import ahead
from onnxplain.runtime.explainer import Explainer
from onnxplain.runtime.explanation import Explanation
from onnxplain.runtime.inputs.estimator import decoded_once
from onnxplain.runtime.inputs.images import load_image
from onnxplain.runtime.inputs.objective import as_inputs, on_photograph, stacked
from onnxplain.runtime.inputs.pixels import as_input
from onnxplain.runtime.inputs.scalars import Temperatures
from onnxplain.runtime.inputs.targets import target_input
from onnxplain.runtime.verification import usual_run
from onnxplain.timing import median_seconds

_BATCHES_AHEAD = 2  # being decoded or drawn, while one is explained
_LARGEST = 64
_WORTH = 1.05  # what twice the batch must gain in images per second
_TIMED_RUNS = 3

Result = TypeVar("Result")


def explain_files(
    explainer: Explainer,
    paths: Iterable[Path],
    targets: Sequence[int | str],
    finish: Callable[[Path, Explanation], Result],
    temperature: Temperatures = None,
    batch_size: int = 1,
    inputs: Mapping[str, Any] = MappingProxyType({}),
) -> Iterator[tuple[Path, Result | InputError]]:
    """Explain files in batches; however many there are, only a few batches are in memory.

    Args:
        explainer: called on the thread that iterates.
        paths: image files.
        targets: the K classes to explain of each image, indices or names; unused where the file's
            objective has none.
        finish: what becomes of an image's explanation (of K rows, or of one with K targets where
            the graph is a multi-target one): draws it, say. Called on other threads.
        temperature: as for `Explainer.__call__`.
        batch_size: rows in a run of the graph, one per image and target.
        inputs: what the file's objective and estimator take besides, the same for all images; boxes
            in their own pixels.

    Yields:
        Each path, in order, with what `finish` returned, or with the `InputError` of an image that
        cannot be read or that `finish` raised.

    Raises:
        InputError: an image for the estimator cannot be used.
        BackendError: the runtime failed.
    """
    given = decoded_once(explainer.metadata, inputs)
    alone = explainer.multi_target or not explainer.backend.signature.has_target
    rows = 1 if alone else len(targets)
    images = max(1, batch_size // rows)

    def decoded(path: Path) -> tuple[Path, _Decoded | InputError]:
        return path, _caught(lambda: _decode(explainer, path, given))

    def finished(path: Path, made: Explanation | InputError) -> tuple[Path, Result | InputError]:
        return path, made if isinstance(made, InputError) else _caught(lambda: finish(path, made))

    def explained() -> Iterator[tuple[Path, Explanation | InputError]]:
        decoding = (functools.partial(decoded, path) for path in paths)
        images_ahead = ahead(pool, decoding, _BATCHES_AHEAD * images)
        while chunk := list(itertools.islice(images_ahead, images)):
            parts = _explain(explainer, chunk, targets, rows, temperature, batch_size)
            for path, made in chunk:
                yield path, made if isinstance(made, InputError) else next(parts)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        finishing = (functools.partial(finished, path, made) for path, made in explained())
        yield from ahead(pool, finishing, _BATCHES_AHEAD * images)


def best_batch_size(explainer: Explainer, path: Path) -> int:
    """The batch size beyond which this backend explains hardly more images per second.

    1, 2, 4, … rows are timed while each doubling gains 5 % or more, up to 64 or what the graph or
    the engine takes.

    Args:
        path: an image to time it with.

    Raises:
        InputError: the image cannot be read.
        BackendError: the runtime fails even with one row.
    """
    signature = explainer.backend.signature
    if signature.batch:
        return signature.batch
    image, _ = as_input(path, signature)
    best, rate = 1, 0.0
    size = 1
    while size <= min(_LARGEST, signature.most or _LARGEST):
        batch = np.repeat(image, size, axis=0)
        try:
            found = size / median_seconds(usual_run(explainer, batch, size), _TIMED_RUNS)
        except BackendError:
            if size == 1:
                raise
            break  # out of memory, most likely
        if found < _WORTH * rate:
            break
        best, rate, size = size, found, 2 * size
    return best


@dataclass(frozen=True, eq=False)
class _Decoded:
    """A file as the network takes it.

    Attributes:
        source: the picture itself.
        image: [C,H,W] or [H,W,C].
        photograph: as it looks, uint8 [1,H,W,3].
        inputs: what the objective takes besides, [1, …] by name.
    """

    source: Image.Image
    image: NDArray[Any]
    photograph: NDArray[np.uint8]
    inputs: Mapping[str, NDArray[Any]]


def _decode(explainer: Explainer, path: Path, given: Mapping[str, Any]) -> _Decoded:
    signature, metadata = explainer.backend.signature, explainer.metadata
    picture = load_image(path)
    try:
        inputs = as_inputs(signature, on_photograph(metadata, given, picture.size), 1)
        batch, photograph = as_input(picture, signature)
    except InputError as error:
        raise InputError(f"'{path}': {error}") from error
    return _Decoded(picture, batch[0], photograph, inputs)


def _explain(
    explainer: Explainer,
    chunk: Sequence[tuple[Path, _Decoded | InputError]],
    targets: Sequence[int | str],
    rows: int,
    temperature: Temperatures,
    batch_size: int,
) -> Iterator[Explanation | InputError]:
    """The explanations of those images that could be read, each of `rows` rows, or their errors."""
    every = [(path, made) for path, made in chunk if not isinstance(made, InputError)]
    # photographs of one size after another, or all that the network sees of them
    for _, same in itertools.groupby(every, key=lambda one: one[1].image.shape):
        paths, own = zip(*same, strict=True)
        try:
            yield from [*_together(explainer, own, targets, rows, temperature, batch_size)]
        except BackendError as error:
            for path, one in zip(paths, own, strict=True):
                yield size_refusal(explainer.metadata, path, one.source.size, error)


def size_refusal(
    metadata: Metadata, path: os.PathLike[str], size: tuple[int, int], error: BackendError
) -> InputError:
    """What is wrong with a photograph on which the runtime failed, if that may be its size.

    Args:
        size: its width and height.

    Raises:
        BackendError: the error itself, where every photograph is made the network's one size.
    """
    if not metadata.preprocessing.any_size:
        raise error
    return InputError(
        f"'{path}' of {size[0]} × {size[1]} pixels cannot be explained, as it may be too small "
        f"for the network, or too large for the memory: {error}"
    )


def _together(
    explainer: Explainer,
    decoded: Sequence[_Decoded],
    targets: Sequence[int | str],
    rows: int,
    temperature: Temperatures,
    batch_size: int,
) -> Iterator[Explanation | InputError]:
    """The same of images of one size."""
    batch = np.stack([one.image for one in decoded]).repeat(rows, axis=0)
    photographs = np.concatenate([one.photograph for one in decoded]).repeat(rows, axis=0)
    signature = explainer.backend.signature
    inputs = stacked(signature, [one.inputs for one in decoded], rows)
    wanted: list[Any] | None = [*targets] * len(decoded)
    if explainer.multi_target:
        wanted = [list(targets)] * len(decoded)
    elif not signature.has_target:
        wanted = None
    indices = target_input(signature, wanted, len(batch))
    explanation = explainer.explain_batch(
        batch, photographs, indices, temperature, batch_size, inputs
    )
    for i in range(len(decoded)):
        own = slice(i * rows, (i + 1) * rows)
        made = replace(explanation[own], sources=[decoded[i].source] * rows)
        given = stacked(signature, [decoded[i].inputs], rows)
        try:
            explainer.require_finite(made, batch[own], indices[own], temperature, given)
            yield made
        except InputError as error:
            yield error


def _caught(call: Callable[[], Result]) -> Result | InputError:
    try:
        return call()
    except InputError as error:
        return error
