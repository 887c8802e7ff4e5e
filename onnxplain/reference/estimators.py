"""Estimators once more, in NumPy: one explanation after the other, as the formulas say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxplain.contract.estimator import BASELINE, BASELINES, Estimated
from onnxplain.contract.explain import Preprocessing
from onnxplain.errors import InputError
from onnxplain.export.estimators.noise import noise
from onnxplain.export.estimators.paths import drawn

Array = npt.NDArray[Any]
Ask = Callable[[Array], Array]
"""The explanations of images [N, C, H, W]: [N, …] or [N, K, …], of the same classes each time."""


def by_estimator(
    estimated: Estimated,
    pre: Preprocessing,
    ask: Ask,
    images: Array,
    inputs: Mapping[str, Array],
) -> Array:
    """What an estimator makes of a method's explanations.

    Args:
        images: normalised, [N, C, H, W].
        inputs: what the estimator takes besides, channels first.

    Raises:
        InputError: the estimator is none of onnxplain's own.
    """
    if estimated.name not in _ESTIMATORS:
        raise InputError(f"the reference has no estimator {estimated.name!r}")
    x = np.asarray(images, np.float64)
    return _ESTIMATORS[estimated.name](estimated.parameters, pre, ask, x, inputs)


def _integrated(
    own: Mapping[str, Any], pre: Preprocessing, ask: Ask, x: Array, inputs: Mapping[str, Array]
) -> Array:
    starts = [_baseline(name, pre, x, inputs) for name in own["baseline"].split(",")]
    return np.mean([_path(own, ask, x, start) for start in starts], axis=0)


def _path(own: Mapping[str, Any], ask: Ask, x: Array, start: Array) -> Array:
    steps = own["steps"]
    if own["rule"] == "gauss-legendre":
        points, weights = np.polynomial.legendre.leggauss(steps)
        points, weights = 0.5 + points / 2, weights / 2
    else:
        edges = np.linspace(0, 1, steps) if steps > 1 else np.array([0.5])
        points, weights = edges, np.array([1.0])
        if steps > 1:
            weights = np.diff(edges, prepend=0) / 2 + np.diff(edges, append=1) / 2
    total = sum(w * ask(start + a * (x - start)) for a, w in zip(points, weights, strict=True))
    return np.asarray(total) * _beside(x - start, np.asarray(total))


def _expected(
    own: Mapping[str, Any], pre: Preprocessing, ask: Ask, x: Array, inputs: Mapping[str, Array]
) -> Array:
    among = np.asarray(inputs[BASELINES], np.float64)
    found = []
    for a, share in zip(*drawn(own["samples"], own["seed"]), strict=True):
        start = among[int(share * len(among))]
        g = ask(start + a * (x - start))
        found.append(g * _beside(x - start, g))
    return np.mean(found, axis=0)


def _smooth(
    own: Mapping[str, Any], pre: Preprocessing, ask: Ask, x: Array, inputs: Mapping[str, Array]
) -> Array:
    return np.mean([*_noisy(own, pre, ask, x)], axis=0)


def _squared(
    own: Mapping[str, Any], pre: Preprocessing, ask: Ask, x: Array, inputs: Mapping[str, Array]
) -> Array:
    return np.mean([g**2 for g in _noisy(own, pre, ask, x)], axis=0)


def _variance(
    own: Mapping[str, Any], pre: Preprocessing, ask: Ask, x: Array, inputs: Mapping[str, Array]
) -> Array:
    return np.var([*_noisy(own, pre, ask, x)], axis=0)


def _noisy(own: Mapping[str, Any], pre: Preprocessing, ask: Ask, x: Array) -> Iterator[Array]:
    extent = np.ptp(x, axis=(1, 2, 3), keepdims=True)
    for n in noise(own["samples"], pre.image_shape, own["seed"]):
        yield ask(x + own["sigma"] * extent * _channels_first(pre, n))


def _channels_first(pre: Preprocessing, n: Array) -> Array:
    return np.moveaxis(n, -1, 0) if pre.layout == "NHWC" else n


def _beside(x: Array, g: Array) -> Array:
    return x if x.ndim == g.ndim else x[:, None]


def _baseline(name: str, pre: Preprocessing, x: Array, inputs: Mapping[str, Array]) -> Array:
    if name == "zero":
        return np.zeros_like(x)
    if name == "black":
        pixels = np.zeros_like(x)
        mean, std = (np.array(v)[:, None, None] for v in (pre.mean, pre.std))
        return (pixels - mean) / std
    if name == "mean":
        return np.broadcast_to(x.mean((2, 3), keepdims=True), x.shape)
    if name == "blur":
        return _blurred(x, 0.1 * min(x.shape[2:]))
    return np.asarray(inputs[BASELINE], np.float64)


def _blurred(x: Array, sigma: float) -> Array:
    """What lies beyond a border counts for nothing: the blur, divided by that of ones."""
    for axis in (2, 3):
        size = x.shape[axis]
        kernel = np.exp(-0.5 * (np.arange(1 - size, size) / sigma) ** 2)
        both = [
            np.apply_along_axis(np.convolve, axis, values, kernel, "valid")
            for values in (x, np.ones_like(x))
        ]
        x = both[0] / both[1]
    return x


_ESTIMATORS = {
    "integrated-gradients": _integrated,
    "expected-gradients": _expected,
    "smoothgrad": _smooth,
    "smoothgrad-squared": _squared,
    "vargrad": _variance,
}
