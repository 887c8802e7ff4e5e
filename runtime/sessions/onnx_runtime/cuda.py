"""ONNX Runtime on NVIDIA's GPUs: its CUDA provider, and its TensorRT provider before that."""

from __future__ import annotations

import contextlib
import ctypes
import io
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import onnxruntime
from numpy.typing import NDArray

from onnxplain.errors import BackendError
from onnxplain.runtime.cache import cache_folder
from onnxplain.runtime.onnx_file import digest
from onnxplain.runtime.sessions.cuda_driver import gpu
from onnxplain.runtime.sessions.onnx_runtime.session import (
    OnnxRuntime,
    open_session,
    session_options,
)

PRECISIONS = ("float32", "tf32", "float16")
"""Not bfloat16: of ONNX Runtime's CUDA kernels (1.31), ConvTranspose and Clip do not take it."""

TENSORRT_PRECISIONS = ("tf32", "float16")

_LIBRARIES = {
    "CUDAExecutionProvider": "onnxruntime_providers_cuda",
    "TensorrtExecutionProvider": "onnxruntime_providers_tensorrt",
}
_RECORDINGS = 8
_NOT_RECORDED = -1  # ONNX Runtime's `gpu_graph_id` of a run that is none


def missing_cuda() -> str | None:
    """What stands in the way of the provider cuda; None if nothing does."""
    return _missing("CUDAExecutionProvider", "pip install 'onnxplain[cuda]'")


def missing_tensorrt() -> str | None:
    """What stands in the way of the provider ort-tensorrt; None if nothing does."""
    return missing_cuda() or _missing(
        "TensorrtExecutionProvider", "pip install 'onnxplain[cuda]' 'tensorrt<11'"
    )


def open_cuda(
    path: Path,
    precision: str,
    threads: int | None = None,
    *,
    device_id: int = 0,
    cuda_graphs: bool = False,
    memory_limit: int | None = None,
) -> OnnxRuntime:
    """ONNX Runtime's CUDA provider.

    Args:
        path: an explain graph.
        precision: "float32"; "tf32", whose products round to 10 bits; or "float16".
        threads: of what is left to the processor.
        device_id: which of the visible GPUs.
        cuda_graphs: record the kernels of each of the first eight shapes of inputs and replay
            them. Calls then take turns.
        memory_limit: bytes on the GPU that the arena may hold; None for all.

    Raises:
        BackendError: no GPU, driver, CUDA provider or library; no such file, not an ONNX file, not
            an explain graph; what the graph needs cannot be recorded.
    """
    if (reason := missing_cuda()) is not None:
        raise BackendError(reason)
    place = _place(device_id)
    provider = (
        "CUDAExecutionProvider",
        cuda_options(precision, device_id, cuda_graphs, memory_limit),
    )
    session = _session(path, precision, threads, [provider])
    kind = RecordedRuns if cuda_graphs else OnnxRuntime
    return kind(session, precision, *place)


def open_tensorrt(
    path: Path,
    precision: str,
    threads: int | None = None,
    *,
    device_id: int = 0,
    memory_limit: int | None = None,
) -> OnnxRuntime:
    """ONNX Runtime's TensorRT provider; what TensorRT cannot run goes to the CUDA provider.

    Engines and timings are kept in the cache, under the graph's digest. The first call of a shape
    builds its engine, which can take minutes. Arguments and errors are those of `open_cuda`, but
    for "float32": the provider has no switch that turns TF32 off.
    """
    if (reason := missing_tensorrt()) is not None:
        raise BackendError(reason)
    place = _place(device_id)
    after = ("CUDAExecutionProvider", cuda_options(precision, device_id, False, memory_limit))
    options = tensorrt_options(
        cache_folder("ort-tensorrt") / digest(path)[:32] / precision, device_id
    )
    session = _session(path, precision, threads, [("TensorrtExecutionProvider", options), after])
    backend = OnnxRuntime(session, precision, *place)
    backend.name = "onnxruntime-tensorrt"
    return backend


def _place(device_id: int) -> tuple[str, str, int]:
    """`OnnxRuntime`'s `device`, `device_type` and `device_id`."""
    return f"{gpu(device_id).name} (cuda:{device_id})", "cuda", device_id


def cuda_options(
    precision: str, device_id: int, cuda_graphs: bool, memory_limit: int | None
) -> dict[str, str]:
    """The CUDA provider's (onnxruntime.ai, "CUDA Execution Provider": configuration options)."""
    options = {
        "device_id": str(device_id),
        # The other strategy doubles the arena each time it grows, and never gives back.
        "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": str(int(precision == "tf32")),
        "enable_cuda_graph": str(int(cuda_graphs)),
    }
    if memory_limit is not None:
        options["gpu_mem_limit"] = str(memory_limit)
    return options


def tensorrt_options(folder: Path, device_id: int) -> dict[str, str]:
    """The TensorRT provider's (onnxruntime.ai, "TensorRT Execution Provider": configurations).

    float16 comes with the graph, in which what must not is still in float32.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "device_id": str(device_id),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folder.parent.parent),
    }


def _session(
    path: Path, precision: str, threads: int | None, providers: Sequence[Any]
) -> onnxruntime.InferenceSession:
    session = open_session(path, precision, session_options(threads), providers)
    wanted = providers[0][0]
    if wanted not in session.get_providers():  # it fell back to the processor, with a log line
        raise BackendError(
            f"ONNX Runtime's {wanted} could not start on this GPU; `onnxplain doctor` says what is "
            "installed"
        )
    return session


def _missing(provider: str, install: str) -> str | None:
    if provider not in onnxruntime.get_available_providers():
        return (
            f"the installed ONNX Runtime has no {provider}: pip uninstall onnxruntime, then "
            f"{install}"
        )
    try:
        gpu()
    except BackendError as error:
        return str(error)
    if (library := _cannot_load(provider)) is not None:
        return f"ONNX Runtime's {provider} needs a library that is missing ({library}): {install}"
    return None


def _cannot_load(provider: str) -> str | None:
    """Why the provider's library cannot be loaded; None if it can."""
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
        onnxruntime.preload_dlls()
        with contextlib.suppress(ImportError):  # the package loads the libraries that it brings
            if provider == "TensorrtExecutionProvider":
                import_module("tensorrt")
    folder = Path(onnxruntime.__file__).parent / "capi"
    try:
        for name in ("onnxruntime_providers_shared", _LIBRARIES[provider]):
            for library in [*folder.glob(f"lib{name}.so"), *folder.glob(f"{name}.dll")]:
                ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        return str(error)
    return None


@dataclass(frozen=True)
class _Recording:
    """Buffers that stay where they are, and what runs on them."""

    inputs: Mapping[str, onnxruntime.OrtValue]
    outputs: Mapping[str, onnxruntime.OrtValue]
    binding: onnxruntime.IOBinding
    options: onnxruntime.RunOptions


class RecordedRuns(OnnxRuntime):
    """A session whose kernels are recorded once for each shape of the inputs, and replayed.

    A recording reads and writes fixed addresses. So each shape has buffers of its own, which
    inputs are copied to and outputs from, and calls take turns. Shapes beyond the first eight run
    without a recording, so that memory does not grow without end.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._options = _graph_id(_NOT_RECORDED)
        self._lock = threading.Lock()
        self._recordings: dict[tuple[Any, ...], _Recording] = {}

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        outputs = self.run_on_device(inputs)
        return {name: value.numpy() for name, value in outputs.items()}

    def iterate(self, *args: Any, **kwargs: Any) -> NDArray[Any]:
        with self._lock:
            return super().iterate(*args, **kwargs)

    def _run_bound(self, inputs: Mapping[str, Any]) -> dict[str, onnxruntime.OrtValue]:
        given = {name: self._value(tensor) for name, tensor in inputs.items()}
        shapes = tuple((name, tuple(value.shape())) for name, value in sorted(given.items()))
        with self._lock:
            recording = self._recordings.get(shapes)
            if recording is None:
                outputs = super()._run_bound(given)
                if len(self._recordings) < _RECORDINGS:
                    self._recordings[shapes] = self._prepared(given, outputs)
                return outputs
            for name, value in given.items():
                recording.inputs[name].update_inplace(value)
            self._session.run_with_iobinding(recording.binding, recording.options)
            return {name: self._copied(value) for name, value in recording.outputs.items()}

    def _prepared(
        self,
        inputs: Mapping[str, onnxruntime.OrtValue],
        outputs: Mapping[str, onnxruntime.OrtValue],
    ) -> _Recording:
        binding = self._session.io_binding()
        fixed = [{name: self._copied(v) for name, v in end.items()} for end in (inputs, outputs)]
        for name, value in fixed[0].items():
            binding.bind_ortvalue_input(name, value)
        for name, value in fixed[1].items():
            binding.bind_ortvalue_output(name, value)
        return _Recording(fixed[0], fixed[1], binding, _graph_id(len(self._recordings) + 1))

    def _copied(self, value: onnxruntime.OrtValue) -> onnxruntime.OrtValue:
        copy = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
            value.shape(), value.element_type(), *self._place
        )
        copy.update_inplace(value)
        return copy


def _graph_id(number: int) -> onnxruntime.RunOptions:
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(number))
    return options
