"""What runs an explain graph, one file per runtime.

A new backend is a class with the members of `Backend`, and one line in `PROVIDERS`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter, signature
from pathlib import Path
from types import MappingProxyType
from typing import Any

from onnxplain.errors import BackendError
from onnxplain.runtime.sessions.onnx_runtime import cuda
from onnxplain.runtime.sessions.onnx_runtime import session as onnx_runtime
from onnxplain.runtime.sessions.openvino import session as openvino
from onnxplain.runtime.sessions.protocol import Backend
from onnxplain.runtime.sessions.tensorrt.engine import SUFFIX

__all__ = [
    "AUTO",
    "Backend",
    "PROVIDERS",
    "Provider",
    "check_provider",
    "open_backend",
    "preferred",
    "usable",
]


@dataclass(frozen=True)
class Provider:
    """A way to run an explain graph.

    Attributes:
        open: (path, precision, threads, **options) → the backend.
        missing: says what stands in its way, in a sentence; None if nothing does.
        precisions: what it can be asked to compute in.
        packages: the distributions that bring it, any one of them.
        able: which of `precisions` the hardware here has; None for all of them.
    """

    open: Callable[..., Backend]
    missing: Callable[[], str | None]
    precisions: tuple[str, ...]
    packages: tuple[str, ...]
    able: Callable[[], tuple[str, ...]] | None = None

    @property
    def options(self) -> tuple[str, ...]:
        """The names of those that are its own."""
        parameters = signature(self.open).parameters.values()
        return tuple(p.name for p in parameters if p.kind is Parameter.KEYWORD_ONLY)


def _tensorrt(provider: str, package: str) -> Provider:
    def open_(
        path: Path,
        precision: str,
        threads: int | None = None,
        *,
        batches: Sequence[int] | None = None,
        targets: Sequence[int] | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Backend:
        from onnxplain.runtime.sessions import tensorrt

        given = {"batches": batches, "targets": targets}
        profile = {name: sizes for name, sizes in given.items() if sizes is not None}
        return tensorrt.open_graph(
            path, provider, precision=precision, progress=progress, **profile
        )

    def missing() -> str | None:
        from onnxplain.runtime.sessions.cuda_driver import gpu
        from onnxplain.runtime.sessions.tensorrt.package import load_package

        try:
            load_package(provider)
            gpu()
        except BackendError as error:
            return str(error)
        return None

    precisions = ("float32", "tf32", "float16", "bfloat16", "int8")
    return Provider(open_, missing, precisions, (package,))


_ONNX_RUNTIME = ("onnxruntime-gpu", "onnxruntime")

PROVIDERS: Mapping[str, Provider] = MappingProxyType(
    {
        "cpu": Provider(
            onnx_runtime.open_cpu, lambda: None, onnx_runtime.PRECISIONS, _ONNX_RUNTIME
        ),
        "openvino": Provider(
            openvino.OpenVINO,
            openvino.missing,
            openvino.PRECISIONS,
            ("openvino",),
            lambda: openvino.devices()[openvino.DEFAULT_DEVICE][1],
        ),
        "cuda": Provider(cuda.open_cuda, cuda.missing_cuda, cuda.PRECISIONS, _ONNX_RUNTIME),
        "ort-tensorrt": Provider(
            cuda.open_tensorrt, cuda.missing_tensorrt, cuda.TENSORRT_PRECISIONS, _ONNX_RUNTIME
        ),
        "tensorrt": _tensorrt("tensorrt", "tensorrt"),
        "tensorrt-rtx": _tensorrt("tensorrt-rtx", "tensorrt-rtx-cu13"),
    }
)


AUTO = ("tensorrt", "cuda", "openvino", "cpu")
"""What `auto` tries, in this order."""


def preferred(precision: str) -> Iterator[str]:
    """The providers that `auto` tries for a precision: those of `AUTO` that compute in it here.

    In float32 the processor's is ONNX Runtime and not OpenVINO: that takes 0.6 (EfficientNet-Lite0)
    to 1.1 (VGG-11, ViT-B/16) times its time for an image, which does not pay for the second load
    that checking it against ONNX Runtime takes. In halves it is OpenVINO; ONNX Runtime's are
    float32 between casts.
    """
    other = "cpu" if precision != "float32" else "openvino"
    for name in AUTO:
        if name != other and precision in usable(name):
            yield name


def usable(name: str) -> tuple[str, ...]:
    """The precisions that a provider can compute in here; none if it is missing."""
    provider = PROVIDERS[name]
    if provider.missing() is not None:
        return ()
    return provider.precisions if provider.able is None else provider.able()


def check_provider(name: str) -> None:
    """Raise BackendError if there is no such provider."""
    if name not in PROVIDERS:
        raise BackendError(f"unknown provider '{name}'; known: {', '.join(['auto', *PROVIDERS])}")


def open_backend(
    path: str | os.PathLike[str],
    provider: str = "auto",
    threads: int | None = None,
    precision: str = "float32",
    **options: Any,
) -> Backend:
    """Make the explain graph at `path` ready to run.

    Args:
        path: an ONNX file written by `onnxplain.export`, or an engine of `onnxplain build`, which
            has its own provider and precision.
        provider: one of `PROVIDERS`, or "auto" for the first of `preferred(precision)`.
        threads: of the processor; None leaves the number to the backend.
        precision: one of the provider's.
        options: the provider's own (`Provider.options`).

    Raises:
        BackendError: an unknown provider, precision or option; what the provider needs is missing;
            or a file that it cannot run.
    """
    if threads is not None and threads < 1:
        raise BackendError(f"threads must be at least 1, not {threads}")
    if Path(path).suffix == SUFFIX:
        from onnxplain.runtime.sessions import tensorrt

        return tensorrt.open_engine(Path(path))
    if provider == "auto":
        provider = next(preferred(precision), "cpu")
    check_provider(provider)
    chosen = PROVIDERS[provider]
    if precision not in chosen.precisions:
        raise BackendError(
            f"the provider {provider} computes in {', '.join(chosen.precisions)}, not in "
            f"'{precision}'"
        )
    if unknown := options.keys() - set(chosen.options):
        has = f"; it has {', '.join(chosen.options)}" if chosen.options else ""
        raise BackendError(f"the provider {provider} has no option '{min(unknown)}'{has}")
    return chosen.open(Path(path), precision, threads, **options)
