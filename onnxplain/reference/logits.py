"""An explain graph's logits beside what the ONNX file it was made of itself says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxplain.errors import OnnxplainError
from onnxplain.reference.parity import Parity
from onnxplain.reference.sources import scores_of_onnx
from onnxplain.runtime import load

Array = npt.NDArray[Any]


def of_noise(
    path: str | os.PathLike[str], source: str | os.PathLike[str], input: str | None = None
) -> Parity | None:
    """On two images of noise. None where that cannot be asked: the graph takes no images of
    floats, or ONNX Runtime does not run the file on images alone.

    Args:
        path: of the explain graph.
        source: the ONNX file.
        input: the image input, where that has several.
    """
    try:
        explainer = load(path, "cpu")
        shape = explainer.metadata.preprocessing.image_shape
        images = np.random.default_rng(0).standard_normal((2, *shape), dtype=np.float32)
        logits = explainer(images).logits
    except OnnxplainError:
        return None
    return of_file(images, source, input, logits)


def of_file(
    images: Array,
    source: str | os.PathLike[str],
    input: str | None,
    logits: Array,
) -> Parity | None:
    """The same of the logits of some images, in the graph's own layout."""
    scores = scores_of_onnx(source, images, logits.shape[1], input)
    found = [Parity.of(end, y) for y in scores for end in _ends(logits)]
    return min(found, key=lambda parity: parity.relative_l2, default=None)


def _ends(logits: Array) -> Iterator[Array]:
    """What a classifier may end in: its logits, and what is made of them."""
    yield logits
    logits = logits.astype(np.float64)
    log_softmax = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    yield from (log_softmax, np.exp(log_softmax), 0.5 + 0.5 * np.tanh(0.5 * logits))
