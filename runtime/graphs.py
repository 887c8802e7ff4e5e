"""Running graphs that are no explain graphs: any inputs and outputs, and state from run to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from onnxplain.errors import BackendError
from onnxplain.runtime.cache import cache_folder
from onnxplain.runtime.onnx_file import digest, read_metadata
from onnxplain.runtime.sessions import PROVIDERS
from onnxplain.runtime.sessions.onnx_runtime.cuda import cuda_options, tensorrt_options
from onnxplain.runtime.sessions.onnx_runtime.session import failure, open_session, session_options
from onnxplain.runtime.sessions.openvino.core import core
from onnxplain.runtime.sessions.openvino.session import configuration
from onnxplain.runtime.sessions.openvino.sorting import sort_across_channels
from onnxplain.runtime.sessions.openvino.weights import own_computed_weights

AUTO = ("cuda", "cpu")

_PRECISIONS = ("float32", "bfloat16", "float16")

_NOT_TENSORRT_S = {"trt_op_types_to_exclude": "NonMaxSuppression,NonZero,RoiAlign,TopK"}
"""TensorRT sorts 3,840 values at most, and notices more only when it builds (tried with TensorRT
for RTX 1.7): ONNX Runtime's CUDA provider sorts. The others are the option's default."""


class Graph(Protocol):
    """A graph made ready to run, by one caller at a time.

    `provider` says what runs it, `metadata` what the file says of it, `outputs` their names.
    """

    provider: str
    metadata: Mapping[str, str]
    outputs: tuple[str, ...]

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The outputs by name.

        Raises:
            BackendError: the runtime failed.
        """
        ...

    def iterate(
        self,
        inputs: Mapping[str, NDArray[Any]],
        carried: Mapping[str, str],
        times: int,
        also: Sequence[str] = (),
    ) -> dict[str, NDArray[Any]]:
        """Run `times` times, each with the outputs `carried` → inputs of the run before.

        What goes from run to run stays on the device; the last of it is returned, and of the
        outputs `also`, by the outputs' names.

        Raises:
            BackendError: the runtime failed.
        """
        ...


def open_graph(
    path: Path,
    provider: str = "auto",
    threads: int | None = None,
    precision: str = "float32",
    sizes: Mapping[str, int] = MappingProxyType({}),
) -> Graph:
    """Make an ONNX file ready to run.

    Args:
        path: the file.
        provider: "cpu" (ONNX Runtime), "openvino", "cuda" or "ort-tensorrt" (both ONNX Runtime); or
            "auto": cuda where there is a GPU, else cpu.
        threads: of the processor; None leaves the number to the runtime.
        precision: "float32"; of OpenVINO also "bfloat16" and "float16".
        sizes: what the graph's open dimensions are, by name, if that is known: ONNX Runtime then
            leaves a few transposes out.

    Raises:
        BackendError: no such file, or one that the runtime cannot load; an unknown provider or
            precision, or one that is not here.
    """
    if provider == "auto":
        provider = next(name for name in AUTO if PROVIDERS[name].missing() is None)
    known = ["openvino", *_OPEN]
    if provider not in known:
        raise BackendError(f"unknown provider '{provider}'; known: auto, {', '.join(known)}")
    if (reason := PROVIDERS[provider].missing()) is not None:
        raise BackendError(reason)
    precisions = _PRECISIONS if provider == "openvino" else _PRECISIONS[:1]
    if precision not in precisions:
        raise BackendError(
            f"{provider} runs these graphs in {', '.join(precisions)}, not in '{precision}'"
        )
    if not path.is_file():
        raise BackendError(f"no such file: '{path}'")
    if provider == "openvino":
        return OpenVINOGraph(path, threads, precision)
    options = session_options(threads)
    for name, size in sizes.items():
        options.add_free_dimension_override_by_name(name, size)
    return OnnxRuntimeGraph(path, options, _OPEN[provider](path), provider)


class OnnxRuntimeGraph:
    """A session (a `Graph`)."""

    def __init__(
        self,
        path: Path,
        options: onnxruntime.SessionOptions,
        providers: Sequence[tuple[str, Mapping[str, str]]],
        provider: str,
    ) -> None:
        session = open_session(path, "float32", options, providers)
        first = providers[0][0]
        if first not in session.get_providers():
            raise BackendError(f"ONNX Runtime's {first} could not start; see `onnxplain doctor`")
        self.provider = provider
        self.metadata = session.get_modelmeta().custom_metadata_map
        self.outputs = tuple(output.name for output in session.get_outputs())
        self._session = session
        self._place = ("cpu" if provider == "cpu" else "cuda", 0)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        try:
            found = self._session.run(self.outputs, dict(inputs))
        except Exception as error:  # ONNX Runtime's errors have no base class of their own
            raise failure(error) from error
        return dict(zip(self.outputs, found, strict=True))

    def iterate(
        self,
        inputs: Mapping[str, NDArray[Any]],
        carried: Mapping[str, str],
        times: int,
        also: Sequence[str] = (),
    ) -> dict[str, NDArray[Any]]:
        try:
            binding = self._session.io_binding()
            for name, array in inputs.items():
                value = onnxruntime.OrtValue.ortvalue_from_numpy(array, *self._place)
                binding.bind_ortvalue_input(name, value)
            for _ in range(times):
                binding.clear_binding_outputs()
                for output in (*carried, *also):
                    binding.bind_output(output, *self._place)
                self._session.run_with_iobinding(binding)
                last = dict(zip((*carried, *also), binding.get_outputs(), strict=True))
                for output, into in carried.items():
                    binding.bind_ortvalue_input(into, last[output])
            return {output: value.numpy() for output, value in last.items()}
        except Exception as error:
            raise failure(error) from error


class OpenVINOGraph:
    """A graph compiled by OpenVINO for the processor (a `Graph`), for each inputs' shapes it meets.

    Compiled for an open batch, OpenVINO (2026.4) sorts a hundred times more slowly.
    """

    provider = "openvino"

    def __init__(self, path: Path, threads: int | None, precision: str) -> None:
        self.metadata: Mapping[str, str] = read_metadata(path)
        self._config = configuration(precision, "latency", threads)
        try:
            self._model = core().read_model(path)
            sort_across_channels(self._model)
            own_computed_weights(self._model)
        except RuntimeError as error:
            raise BackendError(f"OpenVINO cannot load '{path}': {error}") from error
        self.outputs = tuple(port.any_name for port in self._model.outputs)
        self._requests: dict[tuple[Any, ...], Any] = {}

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        found = self._infer(inputs)
        return {name: np.array(found[name]) for name in self.outputs}

    def iterate(
        self,
        inputs: Mapping[str, NDArray[Any]],
        carried: Mapping[str, str],
        times: int,
        also: Sequence[str] = (),
    ) -> dict[str, NDArray[Any]]:
        given = dict(inputs)
        for _ in range(times):
            found = self._infer(given)
            last = {output: np.array(found[output]) for output in (*carried, *also)}
            given |= {into: last[output] for output, into in carried.items()}
        return last

    def _infer(self, inputs: Mapping[str, NDArray[Any]]) -> Any:
        try:
            request = self._request({name: list(array.shape) for name, array in inputs.items()})
            return request.infer(dict(inputs), share_inputs=True, share_outputs=True)
        except (RuntimeError, MemoryError) as error:
            raise BackendError(f"OpenVINO failed: {error}") from error

    def _request(self, shapes: Mapping[str, list[int]]) -> Any:
        key = tuple((name, *shape) for name, shape in sorted(shapes.items()))
        if key not in self._requests:
            model = self._model.clone()
            model.reshape(dict(shapes))
            compiled = core().compile_model(model, "CPU", self._config)
            self._requests[key] = compiled.create_infer_request()
        return self._requests[key]


def _cpu(path: Path) -> list[tuple[str, Mapping[str, str]]]:
    return [("CPUExecutionProvider", {})]


def _cuda(path: Path) -> list[tuple[str, Mapping[str, str]]]:
    return [("CUDAExecutionProvider", cuda_options("float32", 0, False, None))]


def _tensorrt(path: Path) -> list[tuple[str, Mapping[str, str]]]:
    folder = cache_folder("ort-tensorrt") / digest(path)[:32] / "tf32"
    return [
        ("TensorrtExecutionProvider", tensorrt_options(folder, 0) | _NOT_TENSORRT_S),
        ("CUDAExecutionProvider", cuda_options("tf32", 0, False, None)),
    ]


_OPEN = {"cpu": _cpu, "cuda": _cuda, "ort-tensorrt": _tensorrt}
"""Provider → ONNX Runtime's providers, with their options, for a file."""
