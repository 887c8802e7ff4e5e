"""OpenVINO, on the CPU and the other devices that it finds."""

from __future__ import annotations

import functools
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.contract.explain import (
    ACCENTUATED,
    ALPHA,
    EPS,
    IMAGE,
    LIMIT,
    LOGITS,
    NEXT_IMAGE,
    ORIGIN,
    PULLBACK,
    TARGET,
    TEMPERATURE,
)
from onnxplain.errors import BackendError
from onnxplain.runtime.cache import cache_folder, hashed, load, save
from onnxplain.runtime.conversion import without_functions
from onnxplain.runtime.onnx_file import digest, has_functions, has_open_batch, read_metadata
from onnxplain.runtime.sessions.openvino.core import core
from onnxplain.runtime.sessions.openvino.one_image import for_one_image, images_of, of_any_batch
from onnxplain.runtime.sessions.openvino.stem import stem_in_float32
from onnxplain.runtime.sessions.openvino.strided import strided_by_phases
from onnxplain.runtime.sessions.openvino.weights import own_computed_weights
from onnxplain.runtime.signature import Port, Signature

PRECISIONS = ("float32", "float16", "bfloat16", "int8")
DEFAULT_DEVICE = "CPU"
HINTS = ("latency", "throughput")

_HINT_OF = {"float32": "f32", "float16": "f16", "bfloat16": "bf16", "int8": "f32"}
_CAPABILITY = {"float32": "FP32", "float16": "FP16", "bfloat16": "BF16", "int8": "INT8"}
_NAMES = (
    *(IMAGE, TARGET, TEMPERATURE, ORIGIN, ALPHA, EPS, LIMIT),
    *(LOGITS, PULLBACK, NEXT_IMAGE, ACCENTUATED),
)
_FORMAT = 5  # to be raised when the same graph is compiled otherwise than before


def missing() -> str | None:
    """What stands in the way of this provider; None if nothing does."""
    try:
        import openvino as openvino
    except ModuleNotFoundError:
        return "the provider openvino needs the package openvino: pip install 'onnxplain[openvino]'"
    except ImportError as error:
        return f"the package openvino cannot be loaded: {error}"
    return None


@functools.cache
def devices() -> dict[str, tuple[str, tuple[str, ...]]]:
    """The devices that OpenVINO finds: name → what it is, and the precisions it computes in."""
    found = {}
    for device in core().available_devices:
        able = core().get_property(device, "OPTIMIZATION_CAPABILITIES")
        precisions = tuple(p for p in PRECISIONS if _CAPABILITY[p] in able)
        found[device] = (str(core().get_property(device, "FULL_DEVICE_NAME")), precisions)
    return found


def configuration(precision: str, hint: str, threads: int | None) -> dict[str, Any]:
    """OpenVINO's properties for a precision, a hint and a number of threads (None: its own)."""
    config: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": _HINT_OF[precision],
        "PERFORMANCE_HINT": hint.upper(),
    }
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads
    return config


def prepared(model: Any, precision: str, images: int | None) -> Any:
    """The `openvino.Model` that is compiled in a precision, of the one that was read.

    Args:
        images: in a run; 1 fixes a model of any batch to it, others (None: unknown) leave it open.
    """
    if images == 1:
        for_one_image(model)
    own_computed_weights(model)
    if precision != "bfloat16":
        return model
    strided_by_phases(model)
    return stem_in_float32(model)


class OpenVINO:
    """An explain graph compiled by OpenVINO (a `Backend`).

    A graph of an open batch is compiled for one image, and again when more come together: of known
    sizes, OpenVINO (2026.4) leaves out what it otherwise does before every operator. Medians of 7
    on 2 cores, one image: EfficientNet-Lite0 takes 0.90 of the time of the open batch in float32
    and 0.81 in bfloat16, DenseNet-121 0.86 and 0.83, ResNet-50 0.97 … 1.06 and 0.77 … 1.00; eight
    images are as fast either way.

    Args:
        path: an explain graph.
        precision: "float32", what the device computes in halves of ("bfloat16", "float16"), or
            "int8" for a network quantised already (QDQ), as it is.
        threads: None leaves the number to OpenVINO.
        device: one of `devices()`.
        hint: "latency", one call after the other as fast as can be; or "throughput", several
            threads' calls at once.

    Raises:
        BackendError: OpenVINO or the device is missing; the device does not compute in this
            precision; no such file, not an ONNX file, not an explain graph.
    """

    name = "openvino"

    def __init__(
        self,
        path: Path,
        precision: str = "float32",
        threads: int | None = None,
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
        metadata = read_metadata(path)
        config = configuration(precision, hint, threads)
        self._compile = functools.partial(_compiled, path, digest(path), device, precision, config)
        self._made: dict[int | None, _Requests] = {}
        self._making = threading.Lock()
        self._open = has_open_batch(path)
        compiled = self._requests(1).compiled
        inputs, outputs = _ports(compiled.inputs), _ports(compiled.outputs)
        if self._open:
            inputs, outputs = of_any_batch(inputs), of_any_batch(outputs)
        self.signature = Signature.of(metadata, inputs, outputs)
        self._one_by_one = self._open and self.signature.multi_target
        self._inputs, self._outputs = inputs, outputs.keys()

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        chunks = images_of(inputs) if self._one_by_one else [inputs]
        with self._request(inputs) as request:
            runs = [request.infer(dict(chunk), share_inputs=True) for chunk in chunks]
        if len(runs) == 1:
            return {name: runs[0][name] for name in self._outputs}
        return {name: np.concatenate([run[name] for run in runs]) for name in self._outputs}

    def run_on_device(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        raise BackendError(
            f"OpenVINO's {self.device} reads the host's memory; pass tensor.cpu(), or load the "
            "graph with provider='cuda'"
        )

    def iterate(
        self,
        inputs: Mapping[str, NDArray[Any]],
        output: str,
        into: str,
        times: int,
        progress: Callable[[int], None] | None = None,
    ) -> NDArray[Any]:
        given = dict(inputs)
        with self._request(given) as request:
            for run in range(times):
                given[into] = request.infer(given, share_inputs=True)[output]
                if progress:
                    progress(run + 1)
        return given[into]

    @contextmanager
    def _request(self, inputs: Mapping[str, Any]) -> Iterator[Any]:
        """A request for these inputs that no other thread uses."""
        self._check(inputs)
        requests = self._requests(1 if self._one_by_one else len(inputs[IMAGE]))
        try:
            with requests.one() as request:
                yield request
        except (RuntimeError, TypeError, ValueError, MemoryError) as error:
            raise _failure(error) from error

    def _requests(self, images: int) -> _Requests:
        """Of the graph compiled for a run of so many images, which is done when first needed.

        One that was loaded and has not run yet does not stay in memory beside another.
        """
        form = 1 if self._open and images == 1 else None
        if (requests := self._made.get(form)) is not None:
            return requests
        with self._making:
            if form not in self._made:
                self._made = {f: made for f, made in self._made.items() if made.used}
                self._made[form] = _Requests(self._compile(form))
            return self._made[form]

    def _check(self, inputs: Mapping[str, Any]) -> None:
        """OpenVINO takes a missing input from the call before, and converts another dtype."""
        if inputs.keys() != self._inputs.keys():
            raise BackendError(
                f"the graph's inputs are {', '.join(self._inputs)}, not {', '.join(inputs)}"
            )
        batches = set()
        for name, port in self._inputs.items():
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
        if len(batches) > 1:
            raise BackendError(f"the inputs are of different batches: {sorted(batches)}")


class _Requests:
    """A compiled graph's requests: as many as there were callers at once.

    `used` says whether there was one.
    """

    def __init__(self, compiled: Any) -> None:
        self.compiled = compiled
        self.used = False
        self._idle: deque[Any] = deque([compiled.create_infer_request()])

    @contextmanager
    def one(self) -> Iterator[Any]:
        """One that nobody else uses; if a call fails in it, it is not used again."""
        self.used = True
        try:
            request = self._idle.pop()
        except IndexError:
            request = self.compiled.create_infer_request()
        try:
            yield request
        except Exception:
            self._recover()
            raise
        self._idle.append(request)

    def _recover(self) -> None:
        """After a failure, run zeros of two sizes.

        A call that fails between two nodes leaves the compiled graph (OpenVINO 2026.4) unable to
        run inputs of the same shapes, until it has run others.
        """
        for size in (1, 2):
            zeros = {
                name: np.zeros([size if n is None else n for n in port.shape], port.dtype)
                for name, port in _ports(self.compiled.inputs).items()
            }
            with suppress(RuntimeError, MemoryError):
                self.compiled.create_infer_request().infer(zeros)


def _compiled(
    path: Path,
    contents: str,
    device: str,
    precision: str,
    config: Mapping[str, Any],
    images: int | None,
) -> Any:
    """The graph compiled for a run of 1 image, or of what it takes (None).

    Of the cache, if the same was compiled before, else compiled and kept; `contents` is the digest
    of the file as it was loaded.
    OpenVINO's own cache (2026.4) runs what it finds in a damaged file; so it is not used.
    """
    import openvino

    found = devices()
    if device not in found:
        raise BackendError(f"OpenVINO finds no device '{device}' here; it finds {', '.join(found)}")
    full_name, able = found[device]
    if precision not in able:
        raise BackendError(
            f"OpenVINO does not compute in {precision} on {device} ({full_name.strip()}); it does "
            f"in {', '.join(able)}"
        )
    how = [device, full_name, precision, dict(config), images]
    key = [_FORMAT, contents, openvino.__version__, *how]
    kept = cache_folder("openvino") / f"{hashed(key)}.blob"
    try:
        if (blob := load(kept)) is not None:
            return core().import_model(blob, device, dict(config))
    except RuntimeError as error:
        warnings.warn(f"'{kept}' is not used and made anew: {error}", stacklevel=2)
    if digest(path) != contents:
        raise BackendError(f"'{path}' is no longer the file that was loaded: load it again")
    try:
        model = core().read_model(without_functions(path) if has_functions(path) else path)
        if precision == "int8" and not _quantised(model):
            raise BackendError(
                f"'{path}' is not quantised: quantise the network (QDQ), then export it"
            )
        model = prepared(model, precision, images)
        compiled = core().compile_model(model, device, dict(config))
    except (RuntimeError, MemoryError) as error:
        raise BackendError(f"OpenVINO cannot load '{path}': {error}") from error
    _keep(kept, compiled)
    return compiled


def _quantised(model: Any) -> bool:
    return any(node.get_type_name() == "FakeQuantize" for node in model.get_ops())


def _keep(path: Path, compiled: Any) -> None:
    try:
        blob: bytes = compiled.export_model().getvalue()
    except RuntimeError as error:
        warnings.warn(f"the compiled graph cannot be kept: {error}", stacklevel=2)
    else:
        save(path, blob)


def _ports(ports: Sequence[Any]) -> dict[str, Port]:
    """By the contract's names: OpenVINO gives a tensor those of its copies too."""
    described = {}
    for port in ports:
        shape = tuple(d.get_length() if d.is_static else None for d in port.get_partial_shape())
        dtype = np.dtype(port.get_element_type().to_dtype()).name
        name = next((name for name in _NAMES if name in port.names), port.any_name)
        described[name] = Port(dtype, shape)
    return described


def _failure(error: Exception) -> BackendError:
    if (
        isinstance(error, MemoryError)
        or "bad_alloc" in str(error)
        or "Cannot allocate" in str(error)
    ):
        return BackendError(f"not enough memory; run smaller batches: {error}")
    return BackendError(f"OpenVINO failed: {error}")
