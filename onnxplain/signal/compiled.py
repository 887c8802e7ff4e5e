"""Running the graphs of `onnxplain.signal.export`: ONNX Runtime on any device, or OpenVINO."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.contract import IMAGE
from onnxplain.errors import BackendError, InputError
from onnxplain.runtime.backends import PROVIDERS
from onnxplain.runtime.backends.cuda import cuda_options, tensorrt_options
from onnxplain.runtime.backends.onnx_runtime import open_session, session_options
from onnxplain.runtime.backends.openvino import configuration
from onnxplain.runtime.cache import cache_folder
from onnxplain.runtime.onnx_file import digest, read_metadata

RECONSTRUCTION = "reconstruction"
"""The output of an autoencoder's graph, beside `image` and `logits` of the contract."""

METADATA = "onnxplain.signal"
"""The entry of the file's metadata that says, as JSON, the size, the channels and the classes."""

AUTO = ("cuda", "cpu")

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
        provider: "cpu" (ONNX Runtime), "openvino", "cuda" or "ort-tensorrt" (both ONNX Runtime); or
            "auto": cuda where there is a GPU, else cpu.
        threads: of the processor; None leaves the number to the runtime.

    Raises:
        BackendError: no such file, or one of another kind; an unknown provider, or one that is
            not here.
    """
    about = _about(path)
    if provider == "auto":
        provider = next(name for name in AUTO if PROVIDERS[name].missing() is None)
    if provider not in _OPEN:
        raise BackendError(f"unknown provider '{provider}'; known: auto, {', '.join(_OPEN)}")
    if (reason := PROVIDERS[provider].missing()) is not None:
        raise BackendError(reason)
    run = _OPEN[provider](path, threads)
    classes = tuple(about["classes"])
    return Graph(run, provider, about["channels"], about["size"], classes)


def _about(path: Path) -> dict[str, Any]:
    entry = read_metadata(path).get(METADATA)
    if entry is None:
        raise BackendError(
            f"'{path}' is not a graph of an autoencoder; make one with `onnxplain signal train` or "
            "`onnxplain signal export`"
        )
    return json.loads(entry)


def _session(path: Path, threads: int | None, providers: Sequence[Any]) -> Run:
    session = open_session(path, "float32", session_options(threads), providers)
    first = providers[0] if isinstance(providers[0], str) else providers[0][0]
    if first not in session.get_providers():
        raise BackendError(f"ONNX Runtime's {first} could not start; see `onnxplain doctor`")
    names = [output.name for output in session.get_outputs()]

    def run(images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        try:
            return dict(zip(names, session.run(names, {IMAGE: images}), strict=True))
        except Exception as error:  # ONNX Runtime's errors have no base class of their own
            raise BackendError(f"ONNX Runtime failed: {error}") from error

    return run


def _cuda(path: Path, threads: int | None) -> Run:
    options = cuda_options("float32", 0, False, None)
    return _session(path, threads, [("CUDAExecutionProvider", options)])


def _tensorrt(path: Path, threads: int | None) -> Run:
    folder = cache_folder("ort-tensorrt") / digest(path)[:32] / "tf32"
    after = ("CUDAExecutionProvider", cuda_options("tf32", 0, False, None))
    options = tensorrt_options(folder, 0)
    return _session(path, threads, [("TensorrtExecutionProvider", options), after])


def _openvino(path: Path, threads: int | None) -> Run:
    import openvino

    try:
        config = configuration("float32", "latency", threads)
        compiled = openvino.Core().compile_model(path, "CPU", config)
    except (RuntimeError, MemoryError) as error:
        raise BackendError(f"OpenVINO cannot load '{path}': {error}") from error
    names = [output.any_name for output in compiled.outputs]

    def run(images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        try:
            found = compiled.create_infer_request().infer({IMAGE: images})
        except RuntimeError as error:
            raise BackendError(f"OpenVINO failed: {error}") from error
        return {name: found[name].copy() for name in names}

    return run


_OPEN: dict[str, Callable[[Path, int | None], Run]] = {
    "cpu": partial(_session, providers=["CPUExecutionProvider"]),
    "openvino": _openvino,
    "cuda": _cuda,
    "ort-tensorrt": _tensorrt,
}


def require_shape(graph: Graph, images: NDArray[np.float32]) -> None:
    """Raise InputError where the graph takes other pictures."""
    wanted = (graph.channels, graph.size, graph.size)
    if images.shape[1:] != wanted:
        raise InputError(
            f"the graph takes pictures of {list(wanted)}, not of {list(images.shape[1:])}"
        )
