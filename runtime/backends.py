"""What runs an explain graph. So far: ONNX Runtime on the CPU.

A new backend is a class with the four members of `Backend` and `signature`, and one line in
`_BACKENDS`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import onnxruntime
from numpy.typing import NDArray

from onnxplain.errors import BackendError
from onnxplain.runtime.signature import Signature

_SILENT = 4  # what goes wrong arrives as an exception; logged, it would be said twice


class Backend(Protocol):
    """An explain graph made ready to run.

    `device` says where it runs ("CPU"), `precision` in what it computes ("float32").
    """

    name: str
    device: str
    precision: str
    signature: Signature

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The graph's outputs by name, for its inputs by name, of the declared dtypes and shapes.

        Raises:
            BackendError: the runtime failed; the backend can be used again.
        """
        ...

    def iterate(
        self,
        inputs: Mapping[str, NDArray[Any]],
        output: str,
        into: str,
        times: int,
        progress: Callable[[int], None] | None = None,
    ) -> NDArray[Any]:
        """Run `times` times, each with `output` of the run before as the input `into`.

        What goes from run to run stays on the device; the last `output` is returned. `progress`
        is called with 1, 2, … `times`.

        Raises:
            BackendError: the runtime failed; the backend can be used again.
        """
        ...


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


_BACKENDS: dict[str, Callable[[Path, int | None], Backend]] = {"cpu": OnnxRuntimeCPU}


def open_backend(
    path: str | os.PathLike[str], provider: str = "auto", threads: int | None = None
) -> Backend:
    """Make the explain graph at `path` ready to run.

    Args:
        path: an ONNX file written by `onnxplain.export`.
        provider: "cpu", or "auto" for the fastest present.
        threads: threads within one operator; None leaves the number to the backend.

    Raises:
        BackendError: an unknown provider, or a file that it cannot run.
    """
    known = ["auto", *_BACKENDS]
    if provider not in known:
        raise BackendError(f"unknown provider '{provider}'; known: {', '.join(known)}")
    if threads is not None and threads < 1:
        raise BackendError(f"threads must be at least 1, not {threads}")
    return _BACKENDS["cpu" if provider == "auto" else provider](Path(path), threads)
