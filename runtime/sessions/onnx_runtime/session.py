"""ONNX Runtime: its CPU provider and, opened by `cuda`, its providers for GPUs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import BackendError
from onnxplain.runtime.inputs.tensors import LEGACY_STREAM, on_host
from onnxplain.runtime.sessions.cuda_driver import gpu, wait_for
from onnxplain.runtime.sessions.onnx_runtime.options import (
    failures,
    inference_session,
    session_options,
)
from onnxplain.runtime.sessions.protocol import as_arrays, check_iteration
from onnxplain.runtime.signature import Port, Signature

if TYPE_CHECKING:
    import onnxruntime

PRECISIONS = ("float32", "float16")

T = TypeVar("T")

_NUMPY = {"float": "float32", "double": "float64"}


def open_cpu(
    path: Path,
    precision: str,
    threads: int | None = None,
    sizes: Mapping[str, int] = MappingProxyType({}),
) -> OnnxRuntime:
    """ONNX Runtime's CPU provider.

    float16 is there to be checked, not to be fast: the provider computes between casts.

    Args:
        sizes: as for `session_options`.

    Raises:
        BackendError: no such file, or not an ONNX file.
    """
    options = session_options(threads, sizes)
    session = inference_session(path, precision, options, ["CPUExecutionProvider"])
    return OnnxRuntime(session, "cpu", precision)


class OnnxRuntime:
    """A graph in one of ONNX Runtime's sessions (a `Session`).

    Args:
        session: the `onnxruntime.InferenceSession`.
        provider: ours, by which it was opened.
        precision: what it computes in; a network that is in float16 or float64 itself computes in
            that where "float32" is asked for.
        device: as for people to read.
        device_type: ONNX Runtime's name of it, "cpu" or "cuda".
        device_id: which of them.
    """

    name = "onnxruntime"
    _options: onnxruntime.RunOptions | None = None

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        provider: str,
        precision: str,
        device: str = "CPU",
        device_type: str = "cpu",
        device_id: int = 0,
    ) -> None:
        self.provider, self.device = provider, device
        self._session = session
        self._place = (device_type, device_id)
        self.metadata: Mapping[str, str] = session.get_modelmeta().custom_metadata_map
        self.inputs: Mapping[str, Port] = _ports(session.get_inputs())
        self.outputs: Mapping[str, Port] = _ports(session.get_outputs())
        self._names = list(self.outputs)
        floats = (port.dtype for port in self.inputs.values() if port.dtype.startswith("float"))
        self.precision = next(floats, precision) if precision == "float32" else precision

    @functools.cached_property
    def signature(self) -> Signature:
        return Signature.of(self.metadata, self.inputs, self.outputs)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        given = as_arrays(self, inputs)
        outputs = self._turn(lambda: self._session.run(self._names, given))
        return dict(zip(self._names, outputs, strict=True))

    def run_on_device(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return self._turn(lambda: self._run_bound(inputs))

    def iterate(
        self,
        inputs: Mapping[str, NDArray[Any]],
        carried: Mapping[str, str],
        times: int,
        also: Sequence[str] = (),
        progress: Callable[[int], None] | None = None,
    ) -> dict[str, NDArray[Any]]:
        check_iteration(self, carried, times, also)
        given, wanted = as_arrays(self, inputs), list(dict.fromkeys((*carried, *also)))
        binding = self._turn(lambda: self._bound(given))
        for run in range(times):
            last = self._turn(lambda: self._run_again(binding, wanted, carried))
            if progress:
                progress(run + 1)
        return self._turn(lambda: {output: value.numpy() for output, value in last.items()})

    def _turn(self, work: Callable[[], T]) -> T:
        """Do what calls ONNX Runtime, whose errors become ours."""
        with failures():
            return work()

    def _bound(self, inputs: Mapping[str, NDArray[Any]]) -> onnxruntime.IOBinding:
        """Copies of the inputs on the device, bound."""
        import onnxruntime

        binding = self._session.io_binding()
        for name, array in inputs.items():
            value = onnxruntime.OrtValue.ortvalue_from_numpy(array, *self._place)
            binding.bind_ortvalue_input(name, value)
        return binding

    def _run_again(
        self, binding: Any, wanted: Sequence[str], carried: Mapping[str, str]
    ) -> dict[str, onnxruntime.OrtValue]:
        """The outputs `wanted`, of which those `carried` are bound as the next run's inputs."""
        binding.clear_binding_outputs()
        for output in wanted:
            binding.bind_output(output, *self._place)
        self._session.run_with_iobinding(binding, self._options)
        last = dict(zip(wanted, binding.get_outputs(), strict=True))
        for output, into in carried.items():
            binding.bind_ortvalue_input(into, last[output])
        return last

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
                binding.bind_input(name, *self._place, *self._lent(name, tensor))
        for name in self._names:
            binding.bind_output(name, *self._place)
        binding.synchronize_inputs()  # with what their producer still has queued
        self._session.run_with_iobinding(binding, self._options)
        return dict(zip(self._names, binding.get_outputs(), strict=True))

    def _lent(self, name: str, tensor: Any) -> tuple[np.dtype[Any], Sequence[int], int]:
        """dtype, shape and pointer of what only has `__cuda_array_interface__`, once it is written.

        https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html
        """
        interface = tensor.__cuda_array_interface__
        if interface.get("strides") is not None:
            raise BackendError(f"'{name}' must be contiguous on the GPU")
        if (stream := interface.get("stream")) is not None:
            cuda = gpu(self._place[1])
            with cuda.current():
                wait_for(cuda, stream)
        return np.dtype(interface["typestr"]), interface["shape"], interface["data"][0]

    def _value(self, tensor: Any) -> onnxruntime.OrtValue:
        """A tensor of the device, as it lies; a numpy array is copied there."""
        import onnxruntime

        if isinstance(tensor, np.ndarray):
            return onnxruntime.OrtValue.ortvalue_from_numpy(tensor, *self._place)
        if isinstance(tensor, onnxruntime.OrtValue):
            return tensor
        # ONNX Runtime (1.31) names no stream, and torch then waits for none.
        shared = tensor if on_host(tensor) else tensor.__dlpack__(stream=LEGACY_STREAM)
        return onnxruntime.OrtValue.from_dlpack(shared)


def _ports(declared: Sequence[onnxruntime.NodeArg]) -> dict[str, Port]:
    ports = {}
    for node in declared:
        shape = tuple(size if isinstance(size, int) else None for size in node.shape)
        ports[node.name] = Port(dtype_of(node.type), shape)
    return ports


def dtype_of(type_name: str) -> str:
    """numpy's "float32" for ONNX Runtime's "tensor(float)"."""
    name = type_name.removeprefix("tensor(").removesuffix(")")
    return _NUMPY.get(name, name)
