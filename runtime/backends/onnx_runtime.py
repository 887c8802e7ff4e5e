"""ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnxruntime
from numpy.typing import NDArray

from onnxplain.errors import BackendError
from onnxplain.runtime.signature import Signature

_SILENT = 4  # what goes wrong arrives as an exception; logged, it would be said twice


class OnnxRuntimeCPU:
    """ONNX Runtime's CPU provider.

    Args:
        path: an explain graph.
        threads: threads within one operator; None leaves the number to ONNX Runtime.

    Raises:
        BackendError: no such file, not an ONNX file, not an explain graph.
    """

    name = "onnxruntime"
    device = "CPU"

    def __init__(self, path: Path, threads: int | None = None) -> None:
        if not path.is_file():
            raise BackendError(f"no such file: '{path}'")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _SILENT
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's errors have no base class of their own
            raise BackendError(
                f"'{path}' is not an ONNX file that ONNX Runtime can load, or it is cut short: "
                f"{error}"
            ) from error
        self.signature = Signature.of(self._session)
        self.precision = self.signature.dtype.name

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        names = [output.name for output in self._session.get_outputs()]
        try:
            return dict(zip(names, self._session.run(names, dict(inputs)), strict=True))
        except Exception as error:
            raise BackendError(f"ONNX Runtime failed: {error}") from error

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
            values = {n: onnxruntime.OrtValue.ortvalue_from_numpy(a) for n, a in inputs.items()}
            for name, value in values.items():
                binding.bind_ortvalue_input(name, value)
            for run in range(times):
                binding.clear_binding_outputs()
                binding.bind_output(output, self.device.lower())
                self._session.run_with_iobinding(binding)
                (carried,) = binding.get_outputs()
                binding.bind_ortvalue_input(into, carried)
                if progress:
                    progress(run + 1)
            result: NDArray[Any] = carried.numpy()
        except Exception as error:
            raise BackendError(f"ONNX Runtime failed: {error}") from error
        return result
