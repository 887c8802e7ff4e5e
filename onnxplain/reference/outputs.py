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
from onnxplain.runtime.sessions.onnx_runtime.options import failures, session_options

Array = npt.NDArray[Any]

_DTYPES: Mapping[str, Any] = {
    **{"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16},
    **{"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(bool)": np.bool_},
    **{"tensor(uint8)": np.uint8, "tensor(int8)": np.int8},
}


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
        given = noise(original.get_inputs())
    except BackendError as error:
        return f"not checked: ONNX Runtime does not run the source: {error}"
    except KeyError as error:
        return f"not checked: the source takes {error.args[0]}"
    names = [y.name for y in original.get_outputs()]
    try:
        expected = _run(original, names, given)
    except BackendError as error:
        return f"not checked: ONNX Runtime does not run the source on noise: {error}"
    try:
        made = _session(file)
        found = _run(made, names, {**noise(made.get_inputs()), **given})
    except BackendError as error:
        raise SourceError(f"it does not run where its source does: {error}") from error
    again = _run(original, names, given)
    for name, y, expects, anew in zip(names, found, expected, again, strict=True):
        if not _is_same(expects, anew, 0):
            return "not checked: the source does not answer twice the same"
        if not _is_same(y, expects, tolerance(source)):
            raise SourceError(f"on noise, its output {name!r} differs from that of its source")
    return None


def noise(inputs: Sequence[onnxruntime.NodeArg]) -> dict[str, Array]:
    """Inputs of random numbers, 0 and 1 where they are whole; an open size is 2.

    Raises:
        KeyError: an input is no tensor of numbers.
    """
    random, given = np.random.default_rng(0), {}
    for x in inputs:
        shape = [n if isinstance(n, int) else 2 for n in x.shape]
        dtype = np.dtype(_DTYPES[x.type])
        floats = random.standard_normal(shape)
        given[x.name] = np.asarray(floats if dtype.kind == "f" else floats > 0).astype(dtype)
    return given


def _session(path: Path) -> onnxruntime.InferenceSession:
    with failures():
        return onnxruntime.InferenceSession(
            path, session_options(), providers=["CPUExecutionProvider"]
        )


def _run(
    session: onnxruntime.InferenceSession, names: Sequence[str], given: Mapping[str, Array]
) -> list[Array]:
    with failures():
        return [np.asarray(y) for y in session.run(list(names), dict(given))]


def _is_same(y: Array, expected: Array, relative: float) -> bool:
    if y.shape != expected.shape or y.dtype != expected.dtype:
        return False
    if y.dtype.kind != "f" or not np.isfinite(expected).all():
        return np.array_equal(y, expected, equal_nan=y.dtype.kind == "f")
    return np.array_equal(y, expected) or Parity.of(y, expected).relative_l2 <= relative
