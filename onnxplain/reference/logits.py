"""An explain graph's logits beside what the network it was made of itself says."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxplain.contract.explain import IMAGE, LOGITS, Metadata
from onnxplain.contract.objective import OBJECTIVE
from onnxplain.errors import BackendError, SourceError
from onnxplain.files import scratch
from onnxplain.reference.forward import run_forward, turned_for
from onnxplain.reference.outputs import (
    MIXED,
    ONE_ALONE,
    ROUNDED,
    compare_outputs,
    noise_images,
    sizes_tried,
)
from onnxplain.reference.parity import Parity
from onnxplain.reference.seen import behind
from onnxplain.reference.sources import (
    FLOAT32,
    is_onnx,
    outputs_of_pytorch,
    scores_of_onnx,
    scores_of_pytorch,
    tolerance,
)
from onnxplain.runtime.onnx_file import read_metadata, read_ports

Array = npt.NDArray[Any]


def compare(file: Path, original: Any, input: str | None = None) -> str | None:
    """An explain graph beside its source, on two images of noise, or as many as it takes; of one
    that takes photographs what stands behind its preprocessing.

    Args:
        file: of the explain graph.
        original: the path of an ONNX file, or what PyTorch runs.
        input: the image input, where an ONNX file has several.

    Returns:
        What is to be noted: why they cannot be compared, if they cannot; or that the source takes
        one image alone. None otherwise.

    Raises:
        SourceError: the logits, or the outputs of what is no classifier, differ by more than
            rounding, or the graph does not run where an ONNX file does, or not on images of any
            size where it takes them.
    """
    if Metadata.from_props(read_metadata(file)).pixels:
        with scratch() as folder:
            return compare(behind(file, folder), original, input)
    first, *others = sizes_tried(file)
    note = _compared_at(file, original, input, first)
    for size in others:
        _run_at(file, size)
        note = note or _compared_at(file, original, input, size)
    return note


def _run_at(file: Path, size: tuple[int, int]) -> None:
    """
    Raises:
        SourceError: the graph does not run on images of that height and width.
    """
    inputs, outputs = read_ports(file)
    end = OBJECTIVE if OBJECTIVE in outputs else LOGITS
    try:
        run_forward(file, noise_images(inputs, inputs[IMAGE].shape[0] or 2, size), [end])
    except BackendError as error:
        raise SourceError(
            f"it does not run on images of {size[0]} × {size[1]}, so the network takes one size: "
            f"give that, size=HEIGHT, instead of size='any' ({error})"
        ) from error


def _compared_at(file: Path, original: Any, input: str | None, size: tuple[int, int]) -> str | None:
    """What `compare` does with images of one height and width."""
    inputs, outputs = read_ports(file)
    if LOGITS not in outputs or OBJECTIVE in outputs:
        return compare_outputs(file, original, input, size)
    classes, fixed = outputs[LOGITS].shape[1] or 0, inputs[IMAGE].shape[0]
    given = noise_images(inputs, fixed or 2, size)
    scores = _scores(original, given[IMAGE], classes, input)
    note = None
    if isinstance(scores, str) and not fixed:
        given = noise_images(inputs, 1, size)
        alone = _scores(original, given[IMAGE], classes, input)
        scores, note = (scores, None) if isinstance(alone, str) else (alone, ONE_ALONE)
    if isinstance(scores, str):
        return f"not checked: {scores}"
    return _compared(file, original, input, given, scores) or note


def _compared(
    file: Path,
    original: Any,
    input: str | None,
    given: Mapping[str, Array],
    scores: list[Array],
) -> str | None:
    """What `compare` does once the source has told its scores."""
    try:
        logits = _logits(file, given)
    except BackendError as error:
        if is_onnx(original):
            raise SourceError(f"it does not run where its source does: {error}") from error
        return f"not checked: ONNX Runtime does not run it: {error}"
    if not np.isfinite(logits).all() and not np.isfinite(scores[0]).all():
        return "not checked: the source itself makes no finite numbers of noise"
    found = nearest(logits, scores)
    wrong = np.inf if found is None else found.relative_l2
    if wrong <= FLOAT32 or wrong <= tolerance(original):
        return None if is_onnx(original) else _mixed(original, given[IMAGE], scores[0])
    again = _scores(original, given[IMAGE], logits.shape[1], input)
    if not np.array_equal(scores[0], again[0], equal_nan=True):
        return "not checked: the source does not answer twice the same"
    raise SourceError(
        f"on noise, its logits differ from those of its source by {wrong:.1e} of their size"
    )


def _mixed(network: Any, images: Array, scores: Array) -> str | None:
    """What is noted where what PyTorch says of an image depends on the others of its batch."""
    if len(images) == 1:
        return None
    alone, *_ = _scores_of_pytorch(network, images[:1], scores.shape[1])
    return MIXED if Parity.of(alone, scores[:1]).relative_l2 > ROUNDED else None


def _logits(file: Path, given: Mapping[str, Array]) -> Array:
    return run_forward(file, turned_for(file, given), [LOGITS])[LOGITS]


def _scores(original: Any, images: Array, classes: int, input: str | None) -> list[Array] | str:
    """What may be the source's logits, or why there is nothing."""
    if is_onnx(original):
        found = scores_of_onnx(original, images, classes, input)
        return found or "ONNX Runtime does not run the source on images alone"
    try:
        return _scores_of_pytorch(original, images, classes)
    except Exception as error:  # of any kind: it is the user's own code
        return f"PyTorch does not run the source on noise: {error}"


def _scores_of_pytorch(network: Any, images: Array, classes: int) -> list[Array]:
    """Its logits; where it does not name them, what it puts out [N, classes].

    Raises:
        Exception: of any kind, where the network does not take the images, or puts out no such.
    """
    try:
        return [scores_of_pytorch(network, images)]
    except SourceError:
        outputs = outputs_of_pytorch(network, images).values()
        rows = [y.reshape(len(images), -1) for y in outputs if y.size == len(images) * classes]
        if not rows:
            raise
        return rows


def of_file(
    images: Array,
    source: str | os.PathLike[str],
    input: str | None,
    logits: Array,
) -> Parity | None:
    """How far logits are from what an ONNX file says of the same images.

    Args:
        images: in the graph's own layout.
        logits: the graph's, [N, classes].

    Returns:
        None where none of the file's outputs can be compared with them.
    """
    return nearest(logits, scores_of_onnx(source, images, logits.shape[1], input))


def nearest(logits: Array, scores: list[Array]) -> Parity | None:
    """How far logits are from what a classifier may end in; None where there are no scores."""
    found = [Parity.of(end, y) for y in scores for end in _ends(logits)]
    return min(found, key=lambda parity: parity.relative_l2, default=None)


def _ends(logits: Array) -> Iterator[Array]:
    """What a classifier may end in: its logits, and what is made of them."""
    yield logits
    logits = logits.astype(np.float64)
    log_softmax = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    yield from (log_softmax, np.exp(log_softmax), 0.5 + 0.5 * np.tanh(0.5 * logits))
