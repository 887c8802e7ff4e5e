"""What ONNX Runtime's sessions and execution providers are told, and what they say when they fail.

The options are those of onnxruntime.ai, "CUDA Execution Provider" and "TensorRT Execution
Provider": configuration options.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from onnxplain.errors import BackendError, OnnxplainError
from onnxplain.machine import saturates
from onnxplain.reading import unreadable
from onnxplain.runtime.conversion import converted
from onnxplain.runtime.sessions.onnx_runtime.kernels import register

if TYPE_CHECKING:
    import onnxruntime

_SILENT = 4  # what goes wrong arrives as an exception; logged, it would be said twice
_OUT_OF_MEMORY = (
    *("Failed to allocate memory", "is smaller than requested bytes"),  # the arena's, at its limit
    *("bad allocation", "out of memory", "bad_alloc"),
)
_LOST = ("failure 700", "failure 719", "failure 999", "cudaErrorIllegalAddress", "cudaErrorLaunchF")
"""What CUDA says once and for ever: its context, and with it the process, cannot go on."""


def session_options(
    threads: int | None = None, sizes: Mapping[str, int] = MappingProxyType({})
) -> onnxruntime.SessionOptions:
    """The options of every session here.

    A quantised network computes in float32 where products of 8-bit integers would overflow, which
    ONNX Runtime's own do there (onnxruntime.ai, "Quantize ONNX models": U8S8 and S8S8); one that
    computes with integers by itself, in products that do not.

    Args:
        threads: threads within one operator; None leaves the number to ONNX Runtime.
        sizes: what open dimensions are, by name, where that is known; a few transposes fewer.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _SILENT
    if threads is not None:
        options.intra_op_num_threads = threads
    if saturates():
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        options.add_session_config_entry("session.x64quantprecision", "1")
    for name, size in sizes.items():
        options.add_free_dimension_override_by_name(name, size)
    return options


def cuda_options(
    precision: str, device_id: int, cuda_graphs: bool, memory_limit: int | None
) -> dict[str, str]:
    """The CUDA provider's."""
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


def tensorrt_options(folder: Path, device_id: int, sorts: bool = True) -> dict[str, str]:
    """The TensorRT provider's.

    float16 comes with the graph, in which what must not is still in float32.

    Args:
        folder: for the engines of one graph in one precision.
        sorts: whether TensorRT is given the graph's TopK too. It sorts 3,840 values at most, and
            notices more only when it builds (tried with TensorRT for RTX 1.7): the CUDA provider
            sorts any number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    options = {
        "device_id": str(device_id),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folder.parent.parent),
    }
    if not sorts:  # beside the option's default
        options["trt_op_types_to_exclude"] = "NonMaxSuppression,NonZero,RoiAlign,TopK"
    return options


def inference_session(
    path: Path, precision: str, options: onnxruntime.SessionOptions, providers: Sequence[Any]
) -> onnxruntime.InferenceSession:
    """ONNX Runtime's session of a graph, converted first if the precision is a half one.

    The custom operators of `onnxplain-kernels` are registered if the graph calls them. It fails
    where a provider does: by itself ONNX Runtime would print a line, and run on the
    processor from then on.

    Raises:
        BackendError: no such file, not an ONNX file, or one that the GPU cannot take.
    """
    import onnxruntime

    if (problem := unreadable(path)) is not None:
        raise BackendError(problem)
    try:
        registered = register(options, path)
        model: Path | bytes = (
            path if precision in ("float32", "tf32") else converted(path, precision, registered)
        )
        return onnxruntime.InferenceSession(
            model, options, providers=list(providers), enable_fallback=0
        )
    except BackendError:
        raise
    except Exception as error:  # ONNX Runtime's errors have no base class of their own
        if any(words in str(error) for words in _OUT_OF_MEMORY):
            raise failure(error) from error
        if "graph capture" in str(error):
            raise BackendError(
                f"a part of '{path}' runs on the processor, and only what is on the GPU as a whole "
                "can be recorded; load it without cuda_graphs"
            ) from error
        if any(library in str(error) for library in ("CUDA", "CUDNN", "CUBLAS")):
            raise BackendError(f"'{path}' cannot be opened on this GPU: {error}") from error
        raise BackendError(
            f"'{path}' is not an ONNX file that ONNX Runtime can load, or it is cut short: {error}"
        ) from error


@contextmanager
def failures() -> Iterator[None]:
    """ONNX Runtime's errors as ours."""
    try:
        yield
    except OnnxplainError:
        raise
    except Exception as error:
        raise failure(error) from error


def failure(error: Exception) -> BackendError:
    """ONNX Runtime's error as ours."""
    text = str(error)
    if any(words in text for words in _OUT_OF_MEMORY):
        return BackendError(
            f"not enough memory; run smaller batches (batch_size=1 is the least): {text}"
        )
    if any(words in text for words in _LOST):
        return BackendError(
            f"the GPU gave up, and CUDA does not recover within a process; start it again: {text}"
        )
    return BackendError(f"ONNX Runtime failed: {text}")
