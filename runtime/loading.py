"""Opening an explain graph with the provider and the precision asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from onnxplain.contract.explain import Metadata
from onnxplain.contract.precision import precision_named
from onnxplain.errors import BackendError, InputError
from onnxplain.reading import sha256
from onnxplain.runtime.explainer import Explainer
from onnxplain.runtime.inputs.batches import ImageLike
from onnxplain.runtime.onnx_file import digest, read_metadata, read_ports
from onnxplain.runtime.sessions import (
    AUTO,
    PROVIDERS,
    check_provider,
    open_backend,
    preferred,
    usable,
)
from onnxplain.runtime.sessions.tensorrt.engine import SUFFIX, read_engine
from onnxplain.runtime.signature import Signature
from onnxplain.runtime.verification import HALF, least_agreement, reference, samples, usual_run
from onnxplain.runtime.verification import verify as verify_backend
from onnxplain.timing import median_seconds

_TIMED_RUNS = 5
_IMAGES_TIMED = 8  # fewer than an explainer puts into one run


def metadata_of(path: Path) -> Metadata:
    """What an explain graph or an engine says of itself, without opening it to run.

    Raises:
        BackendError: it cannot be read, or is neither.
    """
    props = read_engine(path).metadata if path.suffix == SUFFIX else read_metadata(path)
    return Metadata.from_props(props)


def signature_of(path: Path) -> Signature:
    """What an explain graph or an engine takes and gives, without opening it to run.

    Raises:
        BackendError: it cannot be read, or is neither.
    """
    if path.suffix == SUFFIX:
        engine = read_engine(path)
        return Signature.of(engine.metadata, engine.inputs, engine.outputs)
    return Signature.of(read_metadata(path), *read_ports(path))


def digest_of(path: Path) -> str:
    """The SHA-256 of an explain graph with its external weights, or of an engine.

    Raises:
        BackendError: it cannot be read.
    """
    if path.suffix != SUFFIX:
        return digest(path)
    try:
        return sha256(path)
    except OSError as error:
        raise BackendError(f"'{path}' cannot be read: {error.strerror}") from error


def load(
    path: str | os.PathLike[str],
    provider: str = "auto",
    precision: str = "float32",
    threads: int | None = None,
    verify: bool = False,
    *,
    images: Sequence[ImageLike] | None = None,
    at_least: float | None = None,
    **options: Any,
) -> Explainer:
    """Open an explain graph.

    Args:
        path: an ONNX file written by `onnxplain.export`, or an engine of `onnxplain build`, which
            has its own provider and precision.
        provider: "cpu" (ONNX Runtime), "openvino", "cuda", "ort-tensorrt" (both ONNX Runtime),
            "tensorrt", "tensorrt-rtx"; or "auto" for the fastest of those here that gives what
            ONNX Runtime gives on the CPU. `explainer.backend` says which it is.
        precision: "float32", "tf32", "float16", "bfloat16" or "int8" (fp32, half, bf16 and the
            like are understood), as the provider has them; or
            "auto" for the fastest whose explanations of `images` agree with float32's.
        threads: of the processor; None leaves the number to the backend.
        verify: whether to check the backend against ONNX Runtime on the CPU in float32 now, on
            `images` or else on noise. `auto` always does.
        images: what to compare on, as for `Explainer.__call__`.
        at_least: the least cosine of logits and pullback; 0.9999 for float32, 0.99 for halves and
            int8.
        options: the provider's own: openvino's `device` and `hint`; cuda's and ort-tensorrt's
            `device_id` and `memory_limit`; cuda's `cuda_graphs`; tensorrt's `batches`, `targets`
            and `progress`.

    Raises:
        BackendError: an unknown provider, precision or option; a package or device that is missing
            (and what to install); no such file; not ONNX; not an explain graph; a backend that is
            not right, with the figure.
        InputError: precision "auto" without images, images that cannot be used, or `threads` that
            is no whole number.
    """
    if precision == "auto":
        return fastest(path, images, provider, threads, at_least, **options)[0]
    precision = precision_named(precision)
    if provider == "auto" and Path(path).suffix != SUFFIX:
        return _first_right(path, precision, threads, images, at_least, options)
    explainer = Explainer(open_backend(path, provider, threads, precision, **options), path)
    if verify or at_least is not None:
        verify_backend(explainer, path, images, at_least)
    return explainer


@dataclass(frozen=True)
class Trial:
    """One provider in one precision, tried by `fastest`.

    Attributes:
        provider, precision: what was tried.
        cosine: the least of logits and pullback, to ONNX Runtime's on the CPU in float32.
        seconds: the median of a run's, of several sizes their sum; infinite where it was too far
            off to be timed.
        problem: why it could not be tried; empty otherwise.
    """

    provider: str
    precision: str
    cosine: float = float("nan")
    seconds: float = float("inf")
    problem: str = ""


def fastest(
    path: str | os.PathLike[str],
    images: Sequence[ImageLike] | None,
    provider: str = "auto",
    threads: int | None = None,
    at_least: float | None = None,
    **options: Any,
) -> tuple[Explainer, list[Trial]]:
    """The fastest precision whose explanations of the images agree with float32's, and the trials.

    Args:
        path: an explain graph.
        images: the caller's own, of any sizes where the file takes such; up to eight of them are
            timed, those of one size in one run.
        provider: one, or "auto" for all that are here.
        at_least: the least cosine of logits and pullback, 0.99 unless given.

    Raises:
        InputError: no images, or ones that cannot be used.
        BackendError: a provider that is missing, or none that agrees.
    """
    if not images:
        raise InputError("precision 'auto' compares on images of yours: give some")
    least = HALF if at_least is None else at_least
    right = reference(path, threads)
    batches = samples(right, images)
    trials: list[Trial] = []
    best: tuple[float, Explainer] | None = None
    for name, precision in _combinations(provider, options):
        try:
            explainer = Explainer(open_backend(path, name, threads, precision, **options), path)
            cosine = least_agreement(explainer, right, batches).cosine
        except BackendError as error:
            trials.append(Trial(name, precision, problem=str(error)))
            continue
        if not cosine >= least:
            trials.append(Trial(name, precision, cosine))
            continue
        seconds = sum(_timed(explainer, batches))
        trials.append(Trial(name, precision, cosine, seconds))
        if best is None or seconds < best[0]:
            best = seconds, explainer
    if best is None:
        said = "; ".join(f"{t.precision}: {t.problem or f'{t.cosine:.6f}'}" for t in trials)
        raise BackendError(f"no precision of {provider} has a cosine of {least:g} or more: {said}")
    return best[1], trials


def _timed(explainer: Explainer, batches: Sequence[NDArray[Any]]) -> Iterator[float]:
    """The seconds of a run on the first images of each size, until they are enough."""
    left = _IMAGES_TIMED
    for batch in batches:
        if left > 0:
            yield median_seconds(usual_run(explainer, batch[:left]), _TIMED_RUNS)
            left -= len(batch)


def _combinations(provider: str, options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(provider, precision) to try. On the CPU, ONNX Runtime has float32 alone that is fast."""
    if provider == "auto":
        _no_options(options)
        names: Sequence[str] = AUTO
    else:
        check_provider(provider)
        if (reason := PROVIDERS[provider].missing()) is not None:
            raise BackendError(reason)
        names = [provider]
    return [
        (name, precision)
        for name in names
        for precision in (usable(name) if name != "cpu" else ("float32",))
    ]


def _first_right(
    path: str | os.PathLike[str],
    precision: str,
    threads: int | None,
    images: Sequence[ImageLike] | None,
    at_least: float | None,
    options: Mapping[str, Any],
) -> Explainer:
    """The first that `auto` prefers and that passes verification."""
    _no_options(options)
    signature_of(Path(path))  # before any provider is looked for
    problems = []
    for name in preferred(precision):
        try:
            explainer = Explainer(open_backend(path, name, threads, precision), path)
            if (name, precision) != ("cpu", "float32"):  # which is the reference itself
                verify_backend(explainer, path, images, at_least)
            return explainer
        except BackendError as error:
            problems.append(error)
    if precision == "float32":
        raise problems[-1]  # the CPU's, which says what is wrong with the file
    none = "auto tries no provider that computes in it here; name one"
    said = "; ".join(map(str, problems)) or none
    raise BackendError(
        f"nothing here explains this graph in {precision}: {said}. `onnxplain doctor` says what "
        "can be installed"
    )


def _no_options(options: Mapping[str, Any]) -> None:
    if options:
        raise BackendError(
            f"'{min(options)}' is an option of some providers; name the provider instead of 'auto'"
        )
