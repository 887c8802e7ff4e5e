"""Running the graphs of `onnxplain.signal.export`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.contract.explain import IMAGE
from onnxplain.errors import BackendError, InputError
from onnxplain.runtime.onnx_file import read_metadata
from onnxplain.runtime.sessions import open_session

RECONSTRUCTION = "reconstruction"
"""The output of an autoencoder's graph, beside `image` and `logits` of the contract."""

METADATA = "onnxplain.signal"
"""The entry of the file's metadata that says, as JSON, the size, the channels and the classes."""

Run = Callable[[NDArray[np.float32]], dict[str, NDArray[np.float32]]]


@dataclass(frozen=True)
class Graph:
    """A graph made ready to run.

    Attributes:
        run: `image`, float32 [N, C, size, size] in [0, 1] → its outputs by name.
        provider: what runs it.
        channels, size: of its pictures.
        classes: names of the logits', if it has some.
    """

    run: Run
    provider: str
    channels: int
    size: int
    classes: tuple[str, ...]


def open_graph(path: Path, provider: str = "auto", threads: int | None = None) -> Graph:
    """Load an autoencoder, a classifier, or one behind the other.

    Args:
        path: an ONNX file that `onnxplain.signal.export` wrote.
        provider, threads: of `onnxplain.runtime.sessions.open_session`.

    Raises:
        BackendError: no such file, or one of another kind; an unknown provider, or one that is
            not here.
    """
    about = _about(path)
    session = open_session(path, provider, threads)

    def run(images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        return session.run({IMAGE: images})

    classes = tuple(about["classes"])
    return Graph(run, session.provider, about["channels"], about["size"], classes)


def _about(path: Path) -> dict[str, Any]:
    entry = read_metadata(path).get(METADATA)
    if entry is None:
        raise BackendError(
            f"'{path}' is not a graph of an autoencoder; make one with `onnxplain signal train` or "
            "`onnxplain signal export`"
        )
    return json.loads(entry)


def require_shape(graph: Graph, images: NDArray[np.float32]) -> None:
    """Raise InputError where the graph takes other pictures."""
    wanted = (graph.channels, graph.size, graph.size)
    if images.shape[1:] != wanted:
        raise InputError(
            f"the graph takes pictures of {list(wanted)}, not of {list(images.shape[1:])}"
        )
