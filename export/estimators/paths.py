"""Integrals of the rule along paths from a baseline to the image.

    attribution = (x − x') · ∫₀¹ g(x' + α (x − x')) dα

Where g is a gradient, attributions add up to s(x) − s(x') (completeness), and `convergence_delta`
tells by how much the sum misses it.

**Baselines** are images as the network sees them. `zero` is 0 there: with a normalisation by mean
and std the mean colour of what the network was trained on, without one black. `black` is pixels of
0. `mean` is the image's own mean colour, `blur` the image itself under a Gaussian whose σ is a
tenth of its shorter side. `image` is whatever the input `baseline` holds. Of several, attributions
are the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxplain.contract.estimator import (
    BASELINE,
    BASELINES,
    CONVERGENCE_DELTA,
    EstimatorInput,
)
from onnxplain.contract.explain import DIRECTION, PRODUCT
from onnxplain.export.canonical.ends import image_axes
from onnxplain.export.estimators.asked import Asked, Draw
from onnxplain.export.estimators.estimator import (
    Estimator,
    Sampling,
    nothing_else,
    register_estimator,
)
from onnxplain.export.parameters import Choice, Count
from onnxplain.export.tensors import constant, rank, size_of

Array = NDArray[np.float64]

BLUR = 0.1  # of the shorter side


def names_of(baselines: str) -> list[str]:
    """The names that commas part."""
    return baselines.split(",")


def gauss_legendre(steps: int) -> tuple[Array, Array]:
    """Points α in (0, 1) and their weights: exact for polynomials up to the degree 2 steps − 1."""
    points, weights = np.polynomial.legendre.leggauss(steps)
    return (1 + points) / 2, weights / 2


def trapezoid(steps: int) -> tuple[Array, Array]:
    """Points α from 0 to 1, equally far apart, the two ends counting half; one is the midpoint."""
    if steps == 1:
        return np.full(1, 0.5), np.ones(1)
    weights = np.full(steps, 1 / (steps - 1))
    weights[[0, -1]] /= 2
    return np.linspace(0, 1, steps), weights


RULES: Mapping[str, Callable[[int], tuple[Array, Array]]] = {
    "gauss-legendre": gauss_legendre,
    "trapezoid": trapezoid,
}


def integrated_gradients(asked: Asked, values: Sampling) -> tuple[ir.Value, Mapping[str, ir.Value]]:
    """(x − x') · Σ_s w_s g(x' + α_s (x − x')) (Sundararajan et al. 2017, arXiv 1703.01365); of
    several x' the mean."""
    op, x = asked.op, asked.image
    starts = [baseline(asked, name) for name in names_of(values["baseline"])]
    wholes = [op.Expand(start, op.Shape(x)) for start in starts]
    for whole in wholes:
        whole.shape = x.shape
    points, weights = RULES[values["rule"]](values["steps"])
    number = len(starts)
    stack = op.Concat(*[op.Unsqueeze(whole, [0]) for whole in wholes], axis=0)
    which = asked.table(np.repeat(np.arange(number), values["steps"]))

    def start(draw: Draw) -> ir.Value:
        return starts[0] if number == 1 else draw.op.Gather(stack, draw.of(which, 0), axis=0)

    paths = np.tile(points, number), np.tile(weights / number, number)
    attribution = along_paths(asked, *paths, start)
    total = op.ReduceSum(attribution, [-3, -2, -1], keepdims=0)
    left = op.Div(op.Sum(*[asked.scalar_at(whole) for whole in wholes]), float(number))
    return attribution, {CONVERGENCE_DELTA: op.Sub(total, op.Sub(asked.scalar, left))}


def expected_gradients(asked: Asked, values: Sampling) -> tuple[ir.Value, Mapping[str, ir.Value]]:
    """mean_s (x − x'_s) · g(x'_s + α_s (x − x'_s)), x'_s and α_s drawn with a seed: from the
    baselines, and evenly from [0, 1] (Erion et al. 2021, arXiv 1906.10670)."""
    op, samples, baselines = asked.op, values["samples"], asked.inputs[BASELINES]
    alphas, places = drawn(samples, values["seed"])
    place = asked.table(places)
    number = op.Cast(op.Shape(baselines, start=0, end=1), to=ir.DataType.FLOAT)

    def start(draw: Draw) -> ir.Value:
        inner = draw.op
        share = inner.Cast(draw.of(place, 0), to=ir.DataType.FLOAT)
        index = inner.Cast(inner.Floor(inner.Mul(share, number)), to=ir.DataType.INT64)
        found = inner.Gather(baselines, index, axis=0)
        return inner.Unsqueeze(found, [1]) if draw.size > 1 else found

    return nothing_else(along_paths(asked, alphas, np.full(samples, 1 / samples), start))


def along_paths(
    asked: Asked, alphas: Array, weights: Array, start: Callable[[Draw], ir.Value]
) -> ir.Value:
    """Σ_s w_s (x − x'_s) · g(x'_s + α_s (x − x'_s)).

    Args:
        start: x'_s of the samples of a draw, [c, N, …], or [N, …] of one; N may be 1.
    """
    x, alpha, weight = asked.image, asked.table(alphas), asked.table(weights)

    def sample(draw: Draw) -> ir.Value:
        begun = start(draw)
        step = draw.op.Mul(draw.of(alpha, rank(x)), draw.op.Sub(x, begun))
        return draw.op.Add(begun, step)

    def terms(draw: Draw, g: ir.Value) -> list[ir.Value]:
        difference = draw.op.Sub(x, start(draw))
        if rank(asked.pullback) > rank(x):
            difference = draw.op.Unsqueeze(difference, [-4])
        share = draw.of(weight, rank(asked.pullback))
        return [draw.op.Mul(g, draw.op.Mul(share, difference))]

    return asked.sums(len(alphas), sample, terms)[0]


def drawn(samples: int, seed: int) -> tuple[Array, Array]:
    """α_s, and where x'_s is among the baselines: shares in [0, 1), of float32's precision."""
    shares = np.random.default_rng(seed).random((2, samples), np.float32)
    return shares[0].astype(np.float64), np.minimum(shares[1], 1 - 2.0**-12).astype(np.float64)


def baseline(asked: Asked, name: str) -> ir.Value:
    """x', which broadcasts to the image's shape."""
    op, x, pre = asked.op, asked.image, asked.preprocessing
    height, width, channels = (axis + rank(x) if axis < 0 else axis for axis in image_axes(x))
    if name == "image":
        return asked.inputs[BASELINE]
    if name == "mean":
        return op.ReduceMean(x, [height, width], keepdims=1)
    if name == "blur":
        return _blurred(asked, height, width)
    colour = -np.array(pre.mean) / np.array(pre.std) if name == "black" else np.zeros(pre.channels)
    shape = [1] * rank(x)
    shape[channels] = pre.channels
    return constant(op, colour.reshape(shape), x)


def _blurred(asked: Asked, height: int, width: int) -> ir.Value:
    """The image under a Gaussian, the weights of which add up to 1 at borders too."""
    op, x = asked.op, asked.image
    letters = "nabc"
    sizes = {axis: size_of(x, axis) for axis in (height, width)}
    sigma = BLUR * min(sizes.values())
    for axis, size in sizes.items():
        places = constant(op, np.arange(size), x)
        apart = op.Div(op.Sub(op.Unsqueeze(places, [1]), op.Unsqueeze(places, [0])), sigma)
        weights = op.Softmax(op.Mul(op.Mul(apart, apart), -0.5), axis=1)
        to = letters.replace(letters[axis], "z")
        x = op.Einsum(weights, x, equation=f"z{letters[axis]},{letters}->{to}")
    return x


SEED = Count("seed", 0, "of the draws", low=0, high=2**31 - 1)

register_estimator(
    Estimator(
        name="integrated-gradients",
        aliases=("ig",),
        help="attributions that add up to what the image changes beside a baseline",
        formula="(x − x') · Σ w_s g(x' + α_s (x − x'))",
        source="Sundararajan et al. 2017, arXiv 1703.01365",
        emit=integrated_gradients,
        explanations=lambda values: (
            (values["steps"] + 0.5) * len(names_of(values["baseline"])) + 0.5
        ),
        kinds={DIRECTION: PRODUCT},
        parameters=(
            Count("steps", 50, "of the path from the baseline to the image"),
            Choice(
                "baseline",
                ("zero", "black", "mean", "blur", "image"),
                "where the path begins",
                several=True,
            ),
            Choice("rule", tuple(RULES), "how the integral is approximated"),
        ),
        inputs=lambda values: (
            {BASELINE: EstimatorInput("where the path begins")}
            if "image" in names_of(values["baseline"])
            else {}
        ),
        outputs={CONVERGENCE_DELTA: "the attributions' sum, less what the objective gained"},
    )
)
register_estimator(
    Estimator(
        name="expected-gradients",
        aliases=("gradient-shap",),
        help="attributions beside many baselines, such as other photographs (GradientShap)",
        formula="mean_s (x − x'_s) · g(x'_s + α_s (x − x'_s))",
        source="Erion et al. 2021, arXiv 1906.10670; Lundberg & Lee 2017, arXiv 1705.07874",
        emit=expected_gradients,
        explanations=lambda values: values["samples"] + 0.5,
        kinds={DIRECTION: PRODUCT},
        parameters=(
            Count("samples", 50, "points on paths, each from a baseline that is drawn"),
            SEED,
        ),
        inputs=lambda values: {BASELINES: EstimatorInput("images where paths begin", several=True)},
    )
)
