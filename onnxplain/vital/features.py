"""Running images through a features graph, in batches that it takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.contract.explain import IMAGE, LOGITS, Metadata, Preprocessing
from onnxplain.contract.steps import CHANNEL, StepMetadata
from onnxplain.runtime.inputs.batches import filled
from onnxplain.runtime.predictions import probabilities_of
from onnxplain.runtime.sessions import Session

_BATCH = 8


class Features:
    """A graph by `onnxplain.vital.graphs.features.write_features`, ready to run."""

    def __init__(self, graph: Session) -> None:
        self._graph = graph
        self._activation = Metadata.from_props(graph.metadata).activation
        self._fixed = StepMetadata.from_props(graph.metadata).batch

    def runs(
        self, images: Iterator[NDArray[np.float32]], channel: int | None = None
    ) -> Iterator[dict[str, NDArray[Any]]]:
        """The outputs by name for images [C, H, W] (in the network's layout), batch by batch.

        A network with a fixed batch has its last batch filled up; the surplus is cut off again.

        Raises:
            BackendError: the runtime failed.
        """
        size = self._fixed if isinstance(self._fixed, int) else _BATCH
        for batch in _batches(images, size):
            count = len(batch)
            if isinstance(self._fixed, int):
                batch = filled(batch, self._fixed)
            inputs: dict[str, NDArray[Any]] = {IMAGE: batch}
            if channel is not None:
                inputs[CHANNEL] = np.full(len(batch), channel)
            outputs = self._graph.run(inputs)
            yield {name: array[:count] for name, array in outputs.items()}

    def probabilities(self, outputs: dict[str, NDArray[Any]]) -> NDArray[np.float64]:
        """The classes' probabilities by the outputs of a run, [N, classes]."""
        return probabilities_of(outputs[LOGITS].astype(np.float64), self._activation)


def fitting(pre: Preprocessing) -> Preprocessing:
    """For pictures of exactly the network's input size, which are neither resized nor cropped."""
    return replace(pre, resize=min(pre.height, pre.width))


def _batches(images: Iterator[NDArray[np.float32]], size: int) -> Iterator[NDArray[np.float32]]:
    waiting: list[NDArray[np.float32]] = []
    for image in images:
        waiting.append(image)
        if len(waiting) == size:
            yield np.stack(waiting)
            waiting = []
    if waiting:
        yield np.stack(waiting)
