"""ONNX Runtime on NVIDIA's GPUs: its CUDA provider, and its TensorRT provider before that."""

from __future__ import annotations

import contextlib
import ctypes
import io
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from onnxplain.contract.explain import PULLBACK
from onnxplain.errors import BackendError
from onnxplain.extras import install
from onnxplain.runtime.cache import cache_folder
from onnxplain.runtime.onnx_file import digest, read_ports
from onnxplain.runtime.sessions.cuda_driver import gpu
from onnxplain.runtime.sessions.onnx_runtime.options import (
    cuda_options,
    inference_session,
    session_options,
    tensorrt_options,
)
from onnxplain.runtime.sessions.onnx_runtime.recorded import RecordedRuns
from onnxplain.runtime.sessions.onnx_runtime.session import OnnxRuntime

if TYPE_CHECKING:
    import onnxruntime

PRECISIONS = ("float32", "tf32", "float16")
"""Not bfloat16: of ONNX Runtime's CUDA kernels (1.31), ConvTranspose and Clip do not take it."""

TENSORRT_PRECISIONS = ("tf32", "float16")

_LIBRARIES = {
    "CUDAExecutionProvider": "onnxruntime_providers_cuda",
    "TensorrtExecutionProvider": "onnxruntime_providers_tensorrt",
}


def missing_cuda() -> str | None:
    """What stands in the way of the provider cuda; None if nothing does."""
    return _missing("CUDAExecutionProvider", install("cuda"))


def missing_tensorrt() -> str | None:
    """What stands in the way of the provider ort-tensorrt; None if nothing does."""
    return missing_cuda() or _missing(
        "TensorrtExecutionProvider", f"{install('cuda')} 'tensorrt<11'"
    )


def open_cuda(
    path: Path,
    precision: str,
    threads: int | None = None,
    sizes: Mapping[str, int] = MappingProxyType({}),
    *,
    device_id: int = 0,
    cuda_graphs: bool = False,
    memory_limit: int | None = None,
) -> OnnxRuntime:
    """ONNX Runtime's CUDA provider.

    Args:
        path: a graph.
        precision: "float32"; "tf32", whose products round to 10 bits; or "float16".
        threads: of what is left to the processor.
        sizes: as for `session_options`.
        device_id: which of the visible GPUs.
        cuda_graphs: record the kernels of each of the first eight shapes of inputs and replay
            them. Calls then take turns.
        memory_limit: bytes on the GPU that the arena may hold; None for all.

    Raises:
        BackendError: no GPU, driver, CUDA provider or library; no such file, not an ONNX file;
            what the graph needs cannot be recorded.
    """
    if (reason := missing_cuda()) is not None:
        raise BackendError(reason)
    place = _place(device_id)
    provider = (
        "CUDAExecutionProvider",
        cuda_options(precision, device_id, cuda_graphs, memory_limit),
    )
    session = _session(path, precision, threads, sizes, [provider])
    kind = RecordedRuns if cuda_graphs else OnnxRuntime
    return kind(session, "cuda", precision, *place)


def open_tensorrt(
    path: Path,
    precision: str,
    threads: int | None = None,
    sizes: Mapping[str, int] = MappingProxyType({}),
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
    session = _session(
        path, precision, threads, sizes, tensorrt_first(path, precision, device_id, memory_limit)
    )
    backend = OnnxRuntime(session, "ort-tensorrt", precision, *place)
    backend.name = "onnxruntime-tensorrt"
    return backend


def tensorrt_first(
    path: Path, precision: str, device_id: int, memory_limit: int | None
) -> list[tuple[str, dict[str, str]]]:
    """The TensorRT provider and, after it, the CUDA provider, each with its options.

    An explain graph ranks logits, few enough for TensorRT; another may sort activations.
    """
    folder = cache_folder("ort-tensorrt") / digest(path)[:32] / precision
    sorts = PULLBACK in read_ports(path)[1]
    return [
        ("TensorrtExecutionProvider", tensorrt_options(folder, device_id, sorts)),
        ("CUDAExecutionProvider", cuda_options(precision, device_id, False, memory_limit)),
    ]


def _place(device_id: int) -> tuple[str, str, int]:
    """`OnnxRuntime`'s `device`, `device_type` and `device_id`."""
    return f"{gpu(device_id).name} (cuda:{device_id})", "cuda", device_id


def _session(
    path: Path,
    precision: str,
    threads: int | None,
    sizes: Mapping[str, int],
    providers: Sequence[Any],
) -> onnxruntime.InferenceSession:
    session = inference_session(path, precision, session_options(threads, sizes), providers)
    wanted = providers[0][0]
    if wanted not in session.get_providers():  # it fell back to the processor, with a log line
        raise BackendError(
            f"ONNX Runtime's {wanted} could not start on this GPU; `onnxplain doctor` says what is "
            "installed"
        )
    return session


def _missing(provider: str, install: str) -> str | None:
    import onnxruntime

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
    import onnxruntime

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
