"""ONNX Runtime, on the CPU and, with the options of `cuda.py`, on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from onnxplain.errors import BackendError
from onnxplain.runtime.conversion import converted
from onnxplain.runtime.inputs.tensors import LEGACY_STREAM, on_host
from onnxplain.runtime.signature import Port, Signature

PRECISIONS = ("float32", "float16")

_SILENT = 4  # what goes wrong arrives as an exception; logged, it would be said twice
_NUMPY = {"float": "float32", "double": "float64"}
_OUT_OF_MEMORY = ("Failed to allocate memory", "bad allocation", "out of memory", "bad_alloc")


def session_options(threads: int | None = None) -> onnxruntime.SessionOptions:
    """The options of every session here.

    Args:
        threads: threads within one operator; None leaves the number to ONNX Runtime.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _SILENT
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


def open_cpu(path: Path, precision: str, threads: int | None = None) -> OnnxRuntime:
    """ONNX Runtime's CPU provider.

    float16 is there to be checked, not to be fast: the provider computes between casts.

    Raises:
        BackendError: no such file, not an ONNX file, not an explain graph.
    """
    session = open_session(path, precision, session_options(threads), ["CPUExecutionProvider"])
    return OnnxRuntime(session, precision)


def open_session(
    path: Path, precision: str, options: onnxruntime.SessionOptions, providers: Sequence[Any]
) -> onnxruntime.InferenceSession:
    """A session of an explain graph, converted first if the precision is a half one.

    Raises:
        BackendError: no such file, or not an ONNX file.
    """
    if not path.is_file():
        raise BackendError(f"no such file: '{path}'")
    try:
        model: Path | bytes = (
            path if precision in ("float32", "tf32") else converted(path, precision)
        )
        return onnxruntime.InferenceSession(model, options, providers=list(providers))
    except BackendError:
        raise
    except Exception as error:  # ONNX Runtime's errors have no base class of their own
        if any(words in str(error) for words in _OUT_OF_MEMORY):
            raise failure(error) from error
        raise BackendError(
            f"'{path}' is not an ONNX file that ONNX Runtime can load, or it is cut short: {error}"
        ) from error


class OnnxRuntime:
    """A session (a `Backend`).

    Args:
        session: of an explain graph.
        precision: what it computes in.
        device: as for people to read.
        device_type: ONNX Runtime's name of it, "cpu" or "cuda".
        device_id: which of them.

    Raises:
        BackendError: the graph is not an explain graph.
    """

    name = "onnxruntime"
    _options: onnxruntime.RunOptions | None = None

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        precision: str,
        device: str = "CPU",
        device_type: str = "cpu",
        device_id: int = 0,
    ) -> None:
        self.device = device
        self._session = session
        self._place = (device_type, device_id)
        self._names = [output.name for output in session.get_outputs()]
        self.signature = Signature.of(
            session.get_modelmeta().custom_metadata_map,
            _ports(session.get_inputs()),
            _ports(session.get_outputs()),
        )
        own = self.signature.dtype.name  # of a network that is in float16 or float64 itself
        self.precision = own if precision == "float32" else precision

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        try:
            outputs = self._session.run(self._names, dict(inputs))
        except Exception as error:
            raise failure(error) from error
        return dict(zip(self._names, outputs, strict=True))

    def run_on_device(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return self._run_bound(inputs)
        except BackendError:
            raise
        except Exception as error:
            raise failure(error) from error

    def iterate(
        self,
        inputs: Mapping[str, NDArray[Any]],
        output: str,
        into: str,
        times: int,
        progress: Callable[[int], None] | None = None,
    ) -> NDArray[Any]:
        try:
            binding = self._session.io_binding()
            for name, array in inputs.items():
                value = onnxruntime.OrtValue.ortvalue_from_numpy(array, *self._place)
                binding.bind_ortvalue_input(name, value)
            for run in range(times):
                binding.clear_binding_outputs()
                binding.bind_output(output, *self._place)
                self._session.run_with_iobinding(binding, self._options)
                (carried,) = binding.get_outputs()
                binding.bind_ortvalue_input(into, carried)
                if progress:
                    progress(run + 1)
            result: NDArray[Any] = carried.numpy()
        except Exception as error:
            raise failure(error) from error
        return result

    def _run_bound(self, inputs: Mapping[str, Any]) -> dict[str, onnxruntime.OrtValue]:
        """One run, inputs and outputs on the device."""
        binding = self._session.io_binding()
        kept = []
        for name, tensor in inputs.items():
            if self._place[0] == "cpu" and not on_host(tensor):
                raise BackendError(
                    f"'{name}' lies on a GPU and this graph runs on the CPU: load it with "
                    "provider='cuda', or pass tensor.cpu()"
                )
            if hasattr(tensor, "__dlpack__"):
                kept.append(self._value(tensor))
                binding.bind_ortvalue_input(name, kept[-1])
            else:
                interface = tensor.__cuda_array_interface__
                if interface.get("strides") is not None:
                    raise BackendError(f"'{name}' must be contiguous on the GPU")
                if (stream := interface.get("stream")) is not None:
                    _wait_for(stream, self._place[1])
                dtype, (pointer, _) = np.dtype(interface["typestr"]), interface["data"]
                binding.bind_input(name, *self._place, dtype, interface["shape"], pointer)
        for name in self._names:
            binding.bind_output(name, *self._place)
        binding.synchronize_inputs()  # with what their producer still has queued
        self._session.run_with_iobinding(binding, self._options)
        return dict(zip(self._names, binding.get_outputs(), strict=True))

    def _value(self, tensor: Any) -> onnxruntime.OrtValue:
        """A tensor of the device, as it lies; a numpy array is copied there."""
        if isinstance(tensor, np.ndarray):
            return onnxruntime.OrtValue.ortvalue_from_numpy(tensor, *self._place)
        if isinstance(tensor, onnxruntime.OrtValue):
            return tensor
        # ONNX Runtime (1.31) names no stream, and torch then waits for none.
        shared = tensor if on_host(tensor) else tensor.__dlpack__(stream=LEGACY_STREAM)
        return onnxruntime.OrtValue.from_dlpack(shared)


def _wait_for(stream: int, device_id: int) -> None:
    """Until what was queued on a stream of somebody else is done."""
    from onnxplain.runtime.sessions.cuda_driver import gpu, wait_for

    cuda = gpu(device_id)
    with cuda.current():
        wait_for(cuda, stream)


def _ports(declared: Sequence[onnxruntime.NodeArg]) -> dict[str, Port]:
    ports = {}
    for node in declared:
        dtype = node.type.removeprefix("tensor(").removesuffix(")")
        shape = tuple(size if isinstance(size, int) else None for size in node.shape)
        ports[node.name] = Port(_NUMPY.get(dtype, dtype), shape)
    return ports


def failure(error: Exception) -> BackendError:
    """ONNX Runtime's error as ours."""
    text = str(error)
    if any(words in text for words in _OUT_OF_MEMORY):
        return BackendError(
            f"not enough memory; run smaller batches (batch_size=1 is the least): {text}"
        )
    return BackendError(f"ONNX Runtime failed: {text}")
