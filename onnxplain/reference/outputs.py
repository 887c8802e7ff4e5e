"""A file's outputs beside those of the file that it was made of, on noise, by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from onnxplain.errors import BackendError, SourceError
from onnxplain.reference.logits import tolerance
from onnxplain.reference.parity import Parity
from onnxplain.runtime.onnx_file import read_ports
from onnxplain.runtime.sessions.onnx_runtime.options import failures, session_options
from onnxplain.runtime.signature import Port

Array = npt.NDArray[Any]

FLOAT64 = 1e-10
"""The relative error up to which float64's rounding may account for it."""


def compare(file: Path, source: Path) -> str | None:
    """Every output of the source, which the file has too.

    Returns:
        What is to be noted: why they cannot be compared, if they cannot. None otherwise.

    Raises:
        SourceError: they differ by more than rounding, or the file does not run where its source
            does.
    """
    try:
        original = _session(source)
        names = [y.name for y in original.get_outputs()]
        given, expected = _answers(original, names, read_ports(file)[0])
    except (BackendError, TypeError) as error:  # numpy has no such dtype
        return f"not checked: ONNX Runtime does not run the source on noise: {error}"
    try:
        found = _run(_session(file), names, given)
    except BackendError as error:
        if "NOT_IMPLEMENTED" in str(error):  # as some operators of float64 are
            return f"not checked: ONNX Runtime does not run it: {error}"
        raise SourceError(f"it does not run where its source does: {error}") from error
    _, again = _answers(original, names, read_ports(file)[0])
    for name, y, expects, anew in zip(names, found, expected, again, strict=True):
        if not is_same(expects, anew, 0):
            return "not checked: the source does not answer twice the same"
        if not is_same(y, expects, FLOAT64 if y.dtype == np.float64 else tolerance(source)):
            raise SourceError(f"on noise, its output {name!r} differs from that of its source")
    return None


def _answers(
    session: onnxruntime.InferenceSession, names: Sequence[str], ports: Mapping[str, Port]
) -> tuple[dict[str, Array], list[Array]]:
    """Noise, and what a session says of it; open sizes are 2, or 1 where it takes no other.

    Raises:
        BackendError: it takes neither.
    """
    own = {x.name for x in session.get_inputs()}
    given = noise(ports, 2)
    try:
        return given, _run(session, names, {n: x for n, x in given.items() if n in own})
    except BackendError:
        given = noise(ports, 1)
        return given, _run(session, names, {n: x for n, x in given.items() if n in own})


def noise(ports: Mapping[str, Port], size: int) -> dict[str, Array]:
    """Inputs of random numbers, 0 and 1 where they are whole.

    Args:
        size: for the sizes that are open.

    Raises:
        TypeError: an input is no tensor of numbers.
    """
    random, given = np.random.default_rng(0), {}
    for name, port in ports.items():
        dtype = np.dtype(port.dtype)
        floats = random.standard_normal([n or size for n in port.shape])
        given[name] = np.asarray(floats if dtype.kind == "f" else floats > 0).astype(dtype)
    return given


def _session(path: Path) -> onnxruntime.InferenceSession:
    with failures():
        return onnxruntime.InferenceSession(
            path, session_options(), providers=["CPUExecutionProvider"]
        )


def _run(
    session: onnxruntime.InferenceSession, names: Sequence[str], given: Mapping[str, Array]
) -> list[Array]:
    """
    Raises:
        BackendError: ONNX Runtime fails.
    """
    with failures():
        return [np.asarray(y) for y in session.run(list(names), dict(given))]


def is_same(y: Array, expected: Array, relative: float) -> bool:
    if y.shape != expected.shape or y.dtype != expected.dtype:
        return False
    if y.dtype.kind != "f":
        return np.array_equal(y, expected)
    finite = np.isfinite(expected)
    if not np.array_equal(y[~finite], expected[~finite], equal_nan=True):
        return False
    y, expected = y[finite], expected[finite]
    return np.array_equal(y, expected) or Parity.of(y, expected).relative_l2 <= relative
