"""What a graph puts out, beside a fresh export of its source, evaluated in float64."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy.typing as npt
import onnx

from onnxplain.errors import InputError
from onnxplain.reference.checks import Check, Verification, by_cosine, by_error
from onnxplain.reference.float64 import evaluator, in_float64, run
from onnxplain.reference.parity import Parity
from onnxplain.runtime.verification import least_cosine

Array = npt.NDArray[Any]

_TOLERANCE, _LOOSE = 1e-4, 3e-2
"""The relative error within which an answer in float32 is right; and a pullback, as a gate may open
in float32 and not in float64."""


def derived(
    source: Any,
    asked: Mapping[str, Any],
    feeds: Mapping[str, Array],
    names: Sequence[str] | None = None,
) -> dict[str, Array]:
    """What a fresh export puts out in float64.

    Args:
        source, asked: as `onnxplain.export` takes them.
        names: the outputs; all by default.

    Raises:
        InputError: nothing here evaluates one of the network's operators in float64.
        SourceError: the source cannot be read or exported.
    """
    from onnxplain.export.pipeline import export

    with TemporaryDirectory(prefix="onnxplain-") as folder:
        path = Path(folder) / "fresh.explain.onnx"
        export(source, path, **asked)
        model = in_float64(onnx.load(path))
    try:
        return run(evaluator(model), feeds, names)
    except Exception as error:  # whatever an operator that NumPy has to play may raise
        raise InputError(
            f"the network cannot be evaluated in float64 here: {type(error).__name__}: {error}"
        ) from error


def beside(
    found: Mapping[str, Array],
    right: Mapping[str, Array],
    pullbacks: Container[str],
    tolerance: float | None,
    precision: str,
    samples: int,
) -> Verification:
    """Compare outputs with `derived` ones.

    Args:
        pullbacks: the names of those that are one.
        tolerance: the relative error that is allowed; by default what the precision allows.
        precision: that in which they were found.
    """
    checks: list[Check] = []
    for name, y in found.items():
        parity = Parity.of(y, right[name])
        if tolerance is None and precision != "float32":
            checks.append(by_cosine(name, parity, least_cosine(precision)))
            continue
        limit = _LOOSE if name in pullbacks else _TOLERANCE
        checks.append(by_error(name, parity, limit if tolerance is None else tolerance))
    return Verification("against a fresh derivation in float64", samples, tuple(checks))
