"""A gradient beside finite differences of what it is the gradient of, along directions."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx

from onnxplain.errors import InputError
from onnxplain.reference.answers import of_graph
from onnxplain.reference.checks import Check
from onnxplain.reference.forward import all_nodes
from onnxplain.reference.parity import Parity, ratio
from onnxplain.runtime import Explainer

Array = npt.NDArray[Any]

_ULPS = 2
"""By how many units in the last place of the largest logit a network's rounding moves a logit."""


class DirectionalDerivatives(NamedTuple):
    """A scalar's derivatives along directions: [directions] by the pullback, and measured.

    `rounding` is how far float32's rounding of the scalar may move what was measured.
    """

    predicted: Array
    measured: Array
    rounding: Array

    @property
    def relative_error(self) -> float:
        """Median of |predicted − measured| beyond rounding ÷ median of |measured|.

        Medians over the directions, because one that crosses a kink is wrong by any amount.
        """
        error = np.abs(self.predicted - self.measured) - self.rounding
        return ratio(float(np.median(error.clip(0))), float(np.median(np.abs(self.measured))))


Scalar: TypeAlias = Callable[[Array], tuple[Array, float]]
"""Points [P, …] → the scalar at each, [P], and the size of the numbers that it is rounded among."""


def along_directions(
    scalar: Scalar, x: Array, p: Array, directions: int = 8
) -> dict[str, DirectionalDerivatives]:
    """Check a gradient against its scalar.

    Along a direction v, scaled to the length of x, the gradient p predicts the derivative ⟨p, v⟩,
    and central differences (f(x + hv) − f(x − hv)) / 2h measure it. Directions of two kinds: p
    itself on a random half of its elements, along which the derivative is large, so that float32's
    rounding hardly shows and what p says is checked sharply (a right graph is off by some 10⁻³);
    and Gaussian noise, which also points where p is silent but should not be, with a derivative so
    small that rounding leaves some 10⁻².

    Rounding adds an error ∝ 1/h, of a few ε |f| / h (ε = 2⁻²³); kinks between the two ends (ReLU,
    max-pool) one that grows with h. So steps h from ∛ε downwards are taken, each half of the one
    before, and the answer is where the disagreement of two neighbours and the rounding are least
    together. That choice never looks at the prediction.

    Args:
        x: float32 [1, …].
        p: of the same shape.
        directions: how many of each kind, drawn with a fixed seed.

    Returns:
        {"along the pullback": …, "along noise": …}.
    """
    p = p.astype(np.float64)
    steps = np.cbrt(np.finfo(np.float32).eps) * 2.0 ** -np.arange(12)
    offsets = np.concatenate([steps, -steps]).reshape(-1, *[1] * (x.ndim - 1))

    def along(v: Array) -> tuple[float, float, float]:
        v = v * (np.linalg.norm(x) or 1.0) / (np.linalg.norm(v) or 1.0)
        y, size = scalar((x + offsets * v).astype(np.float32))
        ahead, behind = np.split(y.astype(np.float64), 2)
        differences = (ahead - behind) / (2 * steps)
        rounding = _ULPS * np.finfo(np.float32).eps * size / steps
        best = 1 + (np.abs(np.diff(differences)) + rounding[1:]).argmin()
        return float(np.vdot(p, v)), differences[best], rounding[best]

    random = np.random.default_rng(0)
    kinds: dict[str, Callable[[], Array]] = {
        "along the pullback": lambda: p * random.integers(0, 2, x.shape),
        "along noise": lambda: random.standard_normal(x.shape),
    }
    return {
        kind: DirectionalDerivatives(*np.array([along(draw()) for _ in range(directions)]).T)
        for kind, draw in kinds.items()
    }


def finite_differences(
    explainer: Explainer, image: npt.ArrayLike, target: npt.ArrayLike, directions: int = 8
) -> dict[str, DirectionalDerivatives]:
    """Check a graph of the method "gradient" against its own logits, as `along_directions` does.

    Args:
        explainer: of a graph whose batch is free.
        image: float32 [1, C, H, W].
        target: a class, or -1, -2, … from the top of the ranking; [1, 1] where the graph takes
            several targets.
        directions: how many of each kind, drawn with a fixed seed.

    Raises:
        InputError: the graph is of another method, whose pullback is no derivative.
    """
    if explainer.metadata.method != "gradient":
        raise InputError(
            f"finite differences check the method gradient, not {explainer.metadata.method}"
        )
    x, index = np.asarray(image, np.float32), np.atleast_1d(np.asarray(target, np.int64))
    logits, pullback = of_graph(explainer, x, index)
    class_ = int(index.item())
    if class_ < 0:
        class_ = int(np.argsort(-logits[0], kind="stable")[-1 - class_])

    def logit(images: Array) -> tuple[Array, float]:
        targets = np.full((len(images), *index.shape[1:]), class_)
        logits, _ = of_graph(explainer, images, targets)
        return logits[:, class_], float(np.abs(logits).max())

    return along_directions(logit, x, pullback.reshape(x.shape), directions)


def is_quantised(graph: str | os.PathLike[str]) -> bool:
    """Whether a graph rounds to integers: it rises in steps then, and has no slope to compare."""
    model = onnx.load(graph, load_external_data=False)
    return any(node.op_type == "QuantizeLinear" for node in all_nodes(model.graph))


STEPPED = "not compared with differences: a quantised network rises in steps"
"""What is noted of a gradient that none can be taken of."""

TOLERANCE = 1e-2
SPREAD = {"along the pullback": 1, "along noise": 10}
"""The relative error that is allowed, times that of the kind."""


def check_derivatives(
    explainer: Explainer, image: Array, target: Array, tolerance: float | None
) -> list[Check]:
    """`finite_differences`, each kind beside its bound.

    Args:
        tolerance: as for `within`.
    """
    return within(finite_differences(explainer, image, target), tolerance)


def within(
    found: Mapping[str, DirectionalDerivatives], tolerance: float | None, of: str = ""
) -> list[Check]:
    """Derivatives, each kind beside its bound.

    Args:
        tolerance: the largest relative error along the pullback, ten times less than along noise;
            1e-2 by default.
        of: what is differentiated by, where that must be told.
    """
    checks = []
    for kind, derivatives in found.items():
        limit = (TOLERANCE if tolerance is None else tolerance) * SPREAD[kind]
        parity, error = Parity.of(*derivatives[:2]), derivatives.relative_error
        bound = f"median error ≤ {limit:g}"
        what = f"{of}, {kind}" if of else kind
        checks.append(Check(what, parity.cosine, error, parity.max_abs, bound, error <= limit))
    return checks
