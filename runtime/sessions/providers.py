"""The ways to run a graph, one line each.

A new one is a class with the members of `Session`, and a line in `PROVIDERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter, signature
from pathlib import Path
from types import MappingProxyType

from onnxplain.contract.precision import precision_named
from onnxplain.errors import BackendError
from onnxplain.runtime.sessions import tensorrt
from onnxplain.runtime.sessions.cuda_driver import gpu
from onnxplain.runtime.sessions.onnx_runtime import cuda
from onnxplain.runtime.sessions.onnx_runtime import session as onnx_runtime
from onnxplain.runtime.sessions.openvino import options as openvino
from onnxplain.runtime.sessions.openvino.session import OpenVINO
from onnxplain.runtime.sessions.protocol import Backend
from onnxplain.runtime.sessions.tensorrt.package import load_package
from onnxplain.suggest import called


@dataclass(frozen=True)
class Provider:
    """A way to run a graph.

    Attributes:
        open: (path, precision, threads, sizes, **options) → the session, `threads` and `sizes` as
            for `open_session`. It is a backend where the graph is an explain graph.
        missing: says what stands in its way, in a sentence; None if nothing does.
        precisions: what it can be asked to compute in, the most exact first.
        packages: the distributions that bring it, any one of them.
        able: which of `precisions` the hardware here has; None for all of them.
        aliases: what others call it, as ONNX Runtime does.
    """

    open: Callable[..., Backend]
    missing: Callable[[], str | None]
    precisions: tuple[str, ...]
    packages: tuple[str, ...]
    able: Callable[[], tuple[str, ...]] | None = None
    aliases: tuple[str, ...] = ()

    @property
    def options(self) -> tuple[str, ...]:
        """The names of those that are its own."""
        parameters = signature(self.open).parameters.values()
        return tuple(p.name for p in parameters if p.kind is Parameter.KEYWORD_ONLY)


def _tensorrt(provider: str, package: str, *aliases: str) -> Provider:
    def open_(
        path: Path,
        precision: str,
        threads: int | None,
        sizes: Mapping[str, int],
        *,
        batches: Sequence[int] | None = None,
        targets: Sequence[int] | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Backend:
        given = {"batches": batches, "targets": targets}
        profile = {name: numbers for name, numbers in given.items() if numbers is not None}
        return tensorrt.compile_and_open(
            path, provider, precision=precision, sizes=sizes, progress=progress, **profile
        )

    def missing() -> str | None:
        try:
            load_package(provider)
            gpu()
        except BackendError as error:
            return str(error)
        return None

    return Provider(open_, missing, tensorrt.PRECISIONS, (package,), aliases=aliases)


_ONNX_RUNTIME = ("onnxruntime-gpu", "onnxruntime")

PROVIDERS: Mapping[str, Provider] = MappingProxyType(
    {
        "cpu": Provider(
            onnx_runtime.open_cpu,
            lambda: None,
            onnx_runtime.PRECISIONS,
            _ONNX_RUNTIME,
            aliases=("CPUExecutionProvider", "onnxruntime"),
        ),
        "openvino": Provider(
            OpenVINO,
            openvino.missing,
            openvino.PRECISIONS,
            ("openvino",),
            lambda: openvino.devices()[openvino.DEFAULT_DEVICE][1],
            ("OpenVINOExecutionProvider", "ov"),
        ),
        "cuda": Provider(
            cuda.open_cuda,
            cuda.missing_cuda,
            cuda.PRECISIONS,
            _ONNX_RUNTIME,
            aliases=("CUDAExecutionProvider",),
        ),
        "ort-tensorrt": Provider(
            cuda.open_tensorrt,
            cuda.missing_tensorrt,
            cuda.TENSORRT_PRECISIONS,
            _ONNX_RUNTIME,
            aliases=("TensorrtExecutionProvider",),
        ),
        "tensorrt": _tensorrt("tensorrt", "tensorrt", "trt"),
        "tensorrt-rtx": _tensorrt(
            "tensorrt-rtx",
            "tensorrt-rtx-cu13",
            "NvTensorRTRTXExecutionProvider",
            "trt-rtx",
        ),
    }
)


AUTO = ("tensorrt", "cuda", "openvino", "cpu")
"""What `auto` tries for an explain graph, in this order."""

AUTO_UNVERIFIED = ("cuda", "cpu")
"""What `auto` tries for a graph that nothing checks against the CPU's answer."""


def preferred(precision: str) -> Iterator[str]:
    """The providers that `auto` tries for an explain graph: those that compute in that precision.

    In float32 the processor's is ONNX Runtime and not OpenVINO: that takes 0.6 (EfficientNet-Lite0)
    to 1.1 (VGG-11, ViT-B/16) times its time for an image, which does not pay for the second load
    that checking it against ONNX Runtime takes. In halves OpenVINO comes first; ONNX Runtime's are
    float32 between casts. What none of `AUTO` computes in, the others may.
    """
    precision = precision_named(precision)
    none = True
    for name in AUTO:
        if (name, precision) != ("openvino", "float32") and precision in usable(name):
            none = False
            yield name
    if none:
        yield from (name for name in PROVIDERS if name not in AUTO and precision in usable(name))


def usable(name: str) -> tuple[str, ...]:
    """The precisions that a provider can compute in here; none if it is missing."""
    provider = PROVIDERS[name]
    if provider.missing() is not None:
        return ()
    return provider.precisions if provider.able is None else provider.able()


def check_provider(name: str) -> None:
    """Raise BackendError where a name is neither a provider's nor "auto"."""
    if name in ("auto", *PROVIDERS):
        return
    own = called(name, PROVIDERS)
    here = "" if own is None else f", which is {own} here"
    raise BackendError(f"unknown provider '{name}'{here}; known: {', '.join(['auto', *PROVIDERS])}")
