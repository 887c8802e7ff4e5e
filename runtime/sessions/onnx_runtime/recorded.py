"""Runs recorded once as CUDA graphs, and replayed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.runtime.sessions.cuda_driver import copy_on_gpu, gpu
from onnxplain.runtime.sessions.onnx_runtime.options import failures
from onnxplain.runtime.sessions.onnx_runtime.session import OnnxRuntime, T, dtype_of
from onnxplain.runtime.sessions.protocol import as_arrays

if TYPE_CHECKING:
    import onnxruntime

_RECORDINGS = 8
_NOT_RECORDED = -1  # ONNX Runtime's `gpu_graph_id` of a run that is none


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
    inputs are copied to and outputs from, and calls take turns, on one thread: ONNX Runtime (1.31)
    records anew for each thread that calls it. Shapes beyond the first eight run without a
    recording, so that memory does not grow without end.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._options = _graph_id(_NOT_RECORDED)
        self._thread = ThreadPoolExecutor(1, "onnxplain-cuda-graphs")
        self._recordings: dict[tuple[Any, ...], _Recording] = {}

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        given = as_arrays(self, inputs)
        return self._turn(lambda: {n: _fetched(v) for n, v in self._replayed(given).items()})

    def _turn(self, work: Callable[[], T]) -> T:
        with failures():
            return self._thread.submit(work).result()

    def _run_bound(self, inputs: Mapping[str, Any]) -> dict[str, onnxruntime.OrtValue]:
        return {name: self._copied(value) for name, value in self._replayed(inputs).items()}

    def _replayed(self, inputs: Mapping[str, Any]) -> Mapping[str, onnxruntime.OrtValue]:
        """The outputs, which the next run of these shapes overwrites.

        A buffer takes the bytes of any array, so a recording's key has the dtypes too: those that
        the graph does not take are refused by the run that would be recorded.
        """
        given = {name: self._taken(name, tensor) for name, tensor in inputs.items()}
        key = tuple((name, *_kind(value)) for name, value in sorted(given.items()))
        recording = self._recordings.get(key)
        if recording is None:
            bound = {name: self._value(value) for name, value in given.items()}
            outputs = super()._run_bound(bound)
            if len(self._recordings) < _RECORDINGS:
                self._recordings[key] = self._prepared(bound, outputs)
            return outputs
        for name, value in given.items():
            recording.inputs[name].update_inplace(value)
        self._session.run_with_iobinding(recording.binding, recording.options)
        return recording.outputs

    def _taken(self, name: str, tensor: Any) -> NDArray[Any] | onnxruntime.OrtValue:
        """A tensor as it lies, but a copy where ONNX Runtime has no way to take it."""
        import onnxruntime

        if isinstance(tensor, np.ndarray):
            return tensor
        if hasattr(tensor, "__dlpack__"):
            return self._value(tensor)
        dtype, shape, pointer = self._lent(name, tensor)
        value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, dtype, *self._place)
        copy_on_gpu(gpu(self._place[1]), value.data_ptr(), pointer, value.tensor_size_in_bytes())
        return value

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
        import onnxruntime

        copy = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
            value.shape(), value.element_type(), *self._place
        )
        copy.update_inplace(value)
        return copy


def _fetched(value: onnxruntime.OrtValue) -> NDArray[Any]:
    """An array that no later run writes to; of a value on the processor `numpy` gives a view."""
    array: NDArray[Any] = value.numpy()
    return array.copy() if value.device_name() == "cpu" else array


def _kind(value: NDArray[Any] | onnxruntime.OrtValue) -> tuple[str, tuple[int, ...]]:
    """Its dtype and shape."""
    if isinstance(value, np.ndarray):
        return value.dtype.name, value.shape
    return dtype_of(value.data_type()), tuple(value.shape())


def _graph_id(number: int) -> onnxruntime.RunOptions:
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(number))
    return options
