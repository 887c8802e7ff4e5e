"""Means, and how far to trust them: intervals by the bootstrap, paired over the images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_RESAMPLES = 2000
_SHARE = (2.5, 97.5)  # percentiles: 95 % lie within


@dataclass(frozen=True)
class Estimate:
    """A mean over images.

    Attributes:
        mean: NaN where there is no score.
        low, high: of the interval that holds 95 % of the means of resampled images (percentile
            bootstrap; Efron & Tibshirani 1993, chapter 13).
        count: how many images have a score.
    """

    mean: float
    low: float
    high: float
    count: int


def estimates(scores: NDArray[np.float64], seed: int = 0) -> list[Estimate]:
    """The mean of each row over images, [rows, images]; NaN is no score.

    All rows are resampled alike.
    """
    means = _resampled(scores, seed)
    return [_estimate(row, of) for row, of in zip(scores, means, strict=True)]


def differences(scores: NDArray[np.float64], to: int, seed: int = 0) -> list[Estimate]:
    """The mean of each row less that of the row `to`, over the images that have both scores.

    Paired: both rows are resampled alike, so that what makes an image hard for all rows cancels.
    """
    apart = scores - scores[to]
    return [_estimate(row, of) for row, of in zip(apart, _resampled(apart, seed), strict=True)]


def _resampled(scores: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """The means of resampled images, [rows, resamples]."""
    images = scores.shape[1]
    if not images:
        return np.full((len(scores), _RESAMPLES), np.nan)
    random = np.random.default_rng(seed)
    weights = random.multinomial(images, np.full(images, 1 / images), _RESAMPLES).T
    there = np.isfinite(scores)
    total = np.where(there, scores, 0.0) @ weights
    count = there.astype(np.float64) @ weights
    return np.where(count > 0, total, np.nan) / np.where(count > 0, count, 1)


def _estimate(row: NDArray[np.float64], means: NDArray[np.float64]) -> Estimate:
    there = row[np.isfinite(row)]
    if not len(there):
        return Estimate(np.nan, np.nan, np.nan, 0)
    low, high = np.nanpercentile(means, _SHARE)
    return Estimate(float(there.mean()), float(low), float(high), len(there))
