"""OpenVINO, on the CPU and the other devices that it finds."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.contract.explain import IMAGE, PULLBACK, TARGET, VALUES
from onnxplain.errors import BackendError
from onnxplain.runtime.onnx_file import digest, read_metadata, read_ports
from onnxplain.runtime.outputs import joined
from onnxplain.runtime.sessions.openvino.compile import compiled
from onnxplain.runtime.sessions.openvino.one_image import images_of, one_image
from onnxplain.runtime.sessions.openvino.options import (
    DEFAULT_DEVICE,
    HINTS,
    Shapes,
    configuration,
    full_name,
    missing,
)
from onnxplain.runtime.sessions.openvino.requests import Requests, failures
from onnxplain.runtime.sessions.protocol import as_arrays, check_iteration
from onnxplain.runtime.signature import Port, Signature


class OpenVINO:
    """A graph compiled by OpenVINO (a `Session`).

    An explain graph of an open batch is compiled for one image, and again when more come together:
    of known sizes, OpenVINO (2026.4) leaves out what it otherwise does before every operator.
    Medians of 7 on 2 cores, one image: EfficientNet-Lite0 takes 0.90 of the time of the open batch
    in float32 and 0.81 in bfloat16, DenseNet-121 0.86 and 0.83, ResNet-50 0.97 … 1.06 and
    0.77 … 1.00; eight images are as fast either way.

    Any other graph, also one whose estimator takes a set of images, is compiled for its inputs'
    shapes, anew where they are new: OpenVINO sorts an open batch a hundred times more slowly.

    Args:
        path: an ONNX file.
        precision: "float32", what the device computes in halves of ("bfloat16", "float16"), or
            "int8" for a network quantised already (QDQ), as it is.
        threads: None leaves the number to OpenVINO.
        sizes: for other runtimes; OpenVINO is told by the inputs.
        device: one of `devices()`.
        hint: "latency", one call after the other as fast as can be; or "throughput", several
            threads' calls at once.

    Raises:
        BackendError: OpenVINO or the device is missing; the device does not compute in this
            precision; no such file, or not an ONNX file.
    """

    name = provider = "openvino"

    def __init__(
        self,
        path: Path,
        precision: str = "float32",
        threads: int | None = None,
        sizes: Mapping[str, int] = MappingProxyType({}),
        *,
        device: str = DEFAULT_DEVICE,
        hint: str = "latency",
    ) -> None:
        if (reason := missing()) is not None:
            raise BackendError(reason)
        if hint not in HINTS:
            raise BackendError(f"hint is one of {', '.join(HINTS)}, not '{hint}'")
        self.precision = precision
        self.device = device
        self.metadata: Mapping[str, str] = read_metadata(path)
        self.inputs: Mapping[str, Port]
        self.outputs: Mapping[str, Port]
        self.inputs, self.outputs = read_ports(path)
        full_name(device, precision)
        config = configuration(precision, hint, threads)
        self._compile = functools.partial(compiled, path, digest(path), device, precision, config)
        self._made: dict[Shapes | None, Requests] = {}
        self._making = threading.Lock()
        of_image = VALUES not in self.metadata and PULLBACK in self.outputs
        explains = of_image and self.inputs.keys() >= {IMAGE, TARGET}
        self._explains = explains and not self.signature.metadata.estimator.takes_sets
        is_open = self._explains and self.inputs[IMAGE].shape[:1] == (None,)
        self._one_image = one_image(self.inputs) if is_open else None
        self._one_by_one = is_open and len(self.inputs[TARGET].shape) == 2
        if self._explains:
            self._requests(self._one_image)

    @functools.cached_property
    def signature(self) -> Signature:
        return Signature.of(self.metadata, self.inputs, self.outputs)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        inputs = as_arrays(self, inputs)
        with self._request(inputs) as request, failures():
            chunks = images_of(inputs) if self._one_by_one else [inputs]
            runs = [request.infer(dict(chunk), share_inputs=True) for chunk in chunks]
        if len(runs) == 1:
            return {name: runs[0][name] for name in self.outputs}
        found = [{name: run[name] for name in self.outputs} for run in runs]
        return dict(joined(self.signature.metadata.objective, found))

    def run_on_device(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        raise BackendError(
            f"OpenVINO's {self.device} reads the host's memory; pass tensor.cpu(), or load the "
            "graph with provider='cuda'"
        )

    def iterate(
        self,
        inputs: Mapping[str, NDArray[Any]],
        carried: Mapping[str, str],
        times: int,
        also: Sequence[str] = (),
        progress: Callable[[int], None] | None = None,
    ) -> dict[str, NDArray[Any]]:
        check_iteration(self, carried, times, also)
        given = as_arrays(self, inputs)
        with self._request(given) as request:
            for run in range(times):
                with failures():
                    found = request.infer(given, share_inputs=True, share_outputs=True)
                    last = {output: np.array(found[output]) for output in (*carried, *also)}
                given |= {into: last[output] for output, into in carried.items()}
                if progress:
                    progress(run + 1)
        return last

    @contextmanager
    def _request(self, inputs: Mapping[str, Any]) -> Iterator[Any]:
        """A request for these inputs that no other thread uses."""
        self._check(inputs)
        with self._requests(self._form(inputs)).one() as request:
            yield request

    def _form(self, inputs: Mapping[str, Any]) -> Shapes | None:
        """The shapes for which the graph is compiled to run these inputs; None: as it is."""
        if self._one_by_one:
            return self._one_image
        if self._explains:
            return self._one_image if len(inputs[IMAGE]) == 1 else None
        if all(None not in port.shape for port in self.inputs.values()):
            return None
        return tuple((name, tuple(inputs[name].shape)) for name in self.inputs)

    def _requests(self, form: Shapes | None) -> Requests:
        """Of the graph compiled so, which is done when first needed.

        One that was loaded and has not run yet does not stay in memory beside another.
        """
        if (requests := self._made.get(form)) is not None:
            return requests
        with self._making:
            if form not in self._made:
                self._made = {f: made for f, made in self._made.items() if made.used}
                self._made[form] = Requests(self._compile(form))
            return self._made[form]

    def _check(self, inputs: Mapping[str, Any]) -> None:
        """OpenVINO converts another dtype."""
        batches = set()
        for name, port in self.inputs.items():
            array = inputs[name]
            fits = len(array.shape) == len(port.shape) and all(
                size in (None, given) for size, given in zip(port.shape, array.shape, strict=True)
            )
            if not fits or array.dtype != port.dtype:
                wanted = ", ".join("?" if size is None else str(size) for size in port.shape)
                raise BackendError(
                    f"'{name}' is {array.dtype} {list(array.shape)}, not {port.dtype} [{wanted}]"
                )
            batches.update(array.shape[:1])
        if self._explains and len(batches) > 1:
            raise BackendError(f"the inputs are of different batches: {sorted(batches)}")
