"""Explanations of the image under noise: their mean, their mean square, their variance.

    x_s = x + σ (max x − min x) n_s,   n_s drawn from the normal distribution

max and min are the image's own. The same noise is in the file for every runtime, as data: a table
of normal numbers, and for each row of each sample's image where in the table it begins.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxplain.contract.explain import DIRECTION, MAGNITUDE, MAP, PRODUCT, RELEVANCE
from onnxplain.errors import SourceError
from onnxplain.export.estimators.asked import Asked, Draw
from onnxplain.export.estimators.estimator import (
    Estimator,
    Sampling,
    nothing_else,
    register_estimator,
)
from onnxplain.export.estimators.paths import SEED
from onnxplain.export.parameters import Count, Parameter
from onnxplain.export.tensors import constant, dims, integers, is_known, rank, static

_NUMBERS = 2**16  # of the table


def smoothgrad(asked: Asked, values: Sampling) -> tuple[ir.Value, Mapping[str, ir.Value]]:
    """mean_s g(x_s) (Smilkov et al. 2017, arXiv 1706.03825)."""
    (total,) = noisy_sums(asked, values, 1)
    return nothing_else(asked.op.Div(total, float(values["samples"])))


def smoothgrad_squared(asked: Asked, values: Sampling) -> tuple[ir.Value, Mapping[str, ir.Value]]:
    """mean_s g(x_s)² (Hooker et al. 2019, arXiv 1806.10758)."""
    (total,) = noisy_sums(asked, values, 2)
    return nothing_else(asked.op.Div(total, float(values["samples"])))


def vargrad(asked: Asked, values: Sampling) -> tuple[ir.Value, Mapping[str, ir.Value]]:
    """mean_s g(x_s)² − (mean_s g(x_s))² (Adebayo et al. 2018, arXiv 1810.03307)."""
    op = asked.op
    total, squares = (
        op.Div(each, float(values["samples"])) for each in noisy_sums(asked, values, 1, 2)
    )
    return nothing_else(op.Relu(op.Sub(squares, op.Mul(total, total))))


def noisy_sums(asked: Asked, values: Sampling, *powers: int) -> list[ir.Value]:
    """Σ_s g(x_s)^p for each of the powers, 1 or 2."""
    op, x = asked.op, asked.image
    axes = list(range(1, rank(x)))
    extent = op.Sub(op.ReduceMax(x, axes, keepdims=1), op.ReduceMin(x, axes, keepdims=1))
    scale = op.Mul(extent, values["sigma"])
    if not all(map(is_known, dims(x)[1:])):
        raise SourceError(
            "the noise of an estimator is written into the file, for images of one size: give a "
            "number, size=HEIGHT, instead of size='any'"
        )
    *rows, length = static(x, 1)
    numbers, starts = noise_data(values["samples"], tuple(rows), length, values["seed"])
    normal, begin = constant(op, numbers, x), asked.table(starts)
    along = integers(op, np.arange(length))

    def sample(draw: Draw) -> ir.Value:
        inner = draw.op
        places = inner.Add(draw.of(begin, 1), along)
        n = inner.Gather(normal, places, axis=0)
        return inner.Add(x, inner.Mul(scale, inner.Unsqueeze(n, [-4])))

    def terms(draw: Draw, g: ir.Value) -> list[ir.Value]:
        return [g if power == 1 else draw.op.Mul(g, g) for power in powers]

    return asked.sums(values["samples"], sample, terms, len(powers))


def noise_data(
    samples: int, rows: tuple[int, ...], length: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """A table of normal numbers, and where in it a sample's rows begin, [samples, *rows]."""
    random = np.random.default_rng(seed)
    size = max(length + 1, min(_NUMBERS, samples * int(np.prod(rows)) * length))
    numbers = random.standard_normal(size, np.float32).astype(np.float64)
    return numbers, random.integers(0, size - length, (samples, *rows), endpoint=True)


def noise(samples: int, shape: tuple[int, ...], seed: int) -> NDArray[np.float64]:
    """n, [samples, *shape], of images of that shape."""
    *rows, length = shape
    numbers, starts = noise_data(samples, tuple(rows), length, seed)
    return numbers[starts[..., None] + np.arange(length)]


_PARAMETERS = (
    Count("samples", 25, "of the image under noise"),
    Parameter(
        "sigma",
        0.15,
        "the noise's deviation, as a share of the image's range",
        high=10.0,
        closed=True,
    ),
    SEED,
)

_UNSIGNED = {DIRECTION: MAGNITUDE, PRODUCT: MAGNITUDE, RELEVANCE: MAGNITUDE, MAP: MAP}

for name, help, formula, source, emit, kinds in (
    (
        "smoothgrad",
        "an explanation without what changes from one pixel's noise to the next",
        "mean_s g(x_s)",
        "Smilkov et al. 2017, arXiv 1706.03825",
        smoothgrad,
        {kind: kind for kind in _UNSIGNED},
    ),
    (
        "smoothgrad-squared",
        "where explanations are strong under noise, whatever their sign",
        "mean_s g(x_s)²",
        "Hooker et al. 2019, arXiv 1806.10758",
        smoothgrad_squared,
        _UNSIGNED,
    ),
    (
        "vargrad",
        "where explanations vary under noise",
        "mean_s g(x_s)² − (mean_s g(x_s))²",
        "Adebayo et al. 2018, arXiv 1810.03307",
        vargrad,
        _UNSIGNED,
    ),
):
    register_estimator(
        Estimator(
            name=name,
            help=help,
            formula=formula,
            source=source,
            emit=emit,
            explanations=lambda values: values["samples"] + 0.5,
            kinds=kinds,
            parameters=_PARAMETERS,
        )
    )
