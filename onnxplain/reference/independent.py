"""What no wrong rule of ours can have made: the source's own outputs, and central differences.

A fresh derivation has the rules, and the recognition, of the file that is beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxplain.contract.request import ExportOptions
from onnxplain.errors import SourceError
from onnxplain.export.objectives import LOGIT, Objective
from onnxplain.export.validity import objective_of
from onnxplain.reference.checks import Check, by_error
from onnxplain.reference.derivatives import (
    STEPPED,
    Scalar,
    along_directions,
    is_quantised,
    within,
)
from onnxplain.reference.outputs import is_same
from onnxplain.reference.parity import Parity
from onnxplain.reference.sources import FLOAT32, tolerance
from onnxplain.runtime import Explainer

Array = npt.NDArray[Any]


def outputs_by_source(
    found: Mapping[str, Array], ask: Callable[[], Mapping[str, Array] | str], source: Any
) -> tuple[list[Check], list[str]]:
    """Each output beside the source's own, where the source answers, and twice the same.

    Args:
        ask: what the source says, by the same names; or why it says nothing.

    Returns:
        The checks; and why there are none, if there are none.
    """
    expected = ask()
    if isinstance(expected, str):
        return [], [f"not compared with the source itself: {expected}"]
    limit = max(FLOAT32, tolerance(source))
    checks = [
        _by_source(f"{name}, by the source itself", y, expected[name], limit)
        for name, y in found.items()
        if name in expected and y.dtype.kind == "f"
    ]
    if not all(check.passed for check in checks):
        again = ask()
        if isinstance(again, str) or not all(is_same(again[n], y, 0) for n, y in expected.items()):
            return [], ["not compared with the source itself: it does not answer twice the same"]
    return checks, []


def _by_source(what: str, y: Array, expects: Array, limit: float) -> Check:
    """One of them: of one shape, not finite at the same places, and else near."""
    if y.shape != expects.shape:
        return Check(what, 0.0, np.inf, np.inf, f"shape {list(expects.shape)}", False)
    finite = np.isfinite(expects)
    if not np.array_equal(y[~finite], expects[~finite], equal_nan=True):
        return Check(what, 0.0, np.inf, np.inf, "infinite or NaN at the same places", False)
    return by_error(what, Parity.of(y[finite], expects[finite]), limit)


def is_derivative(explainer: Explainer, objective: Any) -> bool:
    """Whether a graph's pullback is the derivative of its objective, as differences measure it: a
    quantised graph rises in steps, which they do not follow.

    Args:
        objective: as `onnxplain.export` takes it.
    """
    if explainer.metadata.method != "gradient":
        return False
    if explainer.path is not None and is_quantised(explainer.path):
        return False
    try:
        known: Objective | None = objective_of(ExportOptions(objective=objective))
    except SourceError:
        return False
    return known is not None and (known is LOGIT or known.whole)


def stepped(explainer: Explainer) -> list[str]:
    """What is to be noted of a graph whose gradient no differences follow."""
    path, gradient = explainer.path, explainer.metadata.method == "gradient"
    return [STEPPED] if gradient and path is not None and is_quantised(path) else []


def derivatives(
    scalar: Scalar, x: Array, p: Array, tolerance: float | None, of: str = ""
) -> list[Check]:
    """A pullback beside central differences of its scalar, at the first sample.

    Args:
        scalar: of points in place of the first sample of x.
        x: [N, …].
        p: of the same shape; [N, K, …] for several targets, whose first is looked at.
        tolerance, of: as for `onnxplain.reference.derivatives.within`.
    """
    first = p[:1] if p.ndim == x.ndim else p[:1, 0]
    return within(along_directions(scalar, x[:1], first), tolerance, of)


def sized(y: Array, others: Mapping[str, Array]) -> tuple[Array, float]:
    """A scalar at some points, and the size of the numbers that it is rounded among."""
    floats = [y, *(z for z in others.values() if z.dtype.kind == "f")]
    finite = [np.abs(z[np.isfinite(z)]).max(initial=0) for z in floats]
    return y, float(max(finite))
