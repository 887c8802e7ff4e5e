"""What runs a graph: each runtime once, behind one interface."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from onnxplain.contract.precision import precision_named
from onnxplain.errors import BackendError
from onnxplain.options import check_type
from onnxplain.runtime.onnx_file import check_nodes, read_metadata, read_ports, weights_beside
from onnxplain.runtime.sessions import tensorrt
from onnxplain.runtime.sessions.protocol import Backend, Session
from onnxplain.runtime.sessions.providers import (
    AUTO,
    AUTO_UNVERIFIED,
    PROVIDERS,
    Provider,
    check_provider,
    preferred,
    usable,
)
from onnxplain.runtime.sessions.tensorrt import SUFFIX
from onnxplain.runtime.signature import Signature

__all__ = [
    "AUTO",
    "Backend",
    "PROVIDERS",
    "Provider",
    "Session",
    "check_provider",
    "open_backend",
    "open_session",
    "preferred",
    "usable",
]


def open_session(
    path: str | os.PathLike[str],
    provider: str = "auto",
    threads: int | None = None,
    precision: str | None = None,
    sizes: Mapping[str, int] = MappingProxyType({}),
    **options: Any,
) -> Session:
    """Make any ONNX file ready to run.

    Args:
        path: the file, which must stay where it is.
        provider: one of `PROVIDERS`; or "auto": cuda where there is a GPU, else cpu.
        threads: of the processor; None leaves the number to the runtime.
        precision: one of the provider's; None for the most exact.
        sizes: what the graph's open dimensions are, by name, if that is known: TensorRT needs
            those that are not the batch, ONNX Runtime leaves a few transposes out.
        options: the provider's own (`Provider.options`).

    Raises:
        BackendError: an unknown provider, precision or option; what the provider needs is missing;
            no such file, or one that it cannot run.
        InputError: `threads` is no whole number.
    """
    if provider == "auto":
        provider = next(name for name in AUTO_UNVERIFIED if PROVIDERS[name].missing() is None)
    return _opened(Path(path), provider, threads, precision, sizes, options)


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
        BackendError: not an explain graph.
        BackendError, InputError: as `open_session`.
    """
    if Path(path).suffix == SUFFIX:
        _check_threads(threads)
        return tensorrt.open_engine(Path(path))
    precision = precision_named(precision)
    if provider == "auto":
        provider = next(preferred(precision), "cpu")
    check_provider(provider)
    Signature.of(read_metadata(Path(path)), *read_ports(Path(path)))  # before it is compiled
    return _opened(Path(path), provider, threads, precision, {}, options)


def _opened(
    path: Path,
    provider: str,
    threads: int | None,
    precision: str | None,
    sizes: Mapping[str, int],
    options: Mapping[str, Any],
) -> Backend:
    _check_threads(threads)
    check_provider(provider)
    chosen = PROVIDERS[provider]
    precision = chosen.precisions[0] if precision is None else precision_named(precision)
    if precision not in chosen.precisions:
        raise BackendError(
            f"the provider {provider} computes in {', '.join(chosen.precisions)}, not in "
            f"'{precision}'"
        )
    if unknown := options.keys() - set(chosen.options):
        has = f"; it has {', '.join(chosen.options)}" if chosen.options else ""
        raise BackendError(f"the provider {provider} has no option '{min(unknown)}'{has}")
    weights_beside(path)  # not all runtimes look where they lie
    check_nodes(path)
    return chosen.open(path, precision, threads, sizes, **options)


def _check_threads(threads: int | None) -> None:
    check_type("threads", threads, int | None)
    if threads is not None and threads < 1:
        raise BackendError(f"threads must be at least 1, not {threads}")
