"""How much of the originals the reconstructions keep: information, colours, frequencies."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

COLOUR_BINS = 64
"""How many equal bins a channel's histogram has over [0, 1]."""

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


def grey(pixels: NDArray[Any]) -> NDArray[np.float64]:
    """Pixels [N, C, H, W] in [0, 1], C = 1 or 3, clipped → luma [N, H, W]."""
    clipped = pixels.astype(np.float64).clip(0, 1)
    return clipped[:, 0] if clipped.shape[1] == 1 else np.tensordot(clipped, _LUMA, ([1], [0]))


def information_bins(pixels: int) -> int:
    """How many bins a histogram of grey values has in `normalised_information`.

    The power of two nearest to the cube root of the number of pixels (32 for 224 × 224, 8 for
    32 × 32), so that the bins of the joint histogram hold a few pixels each. More bins would
    overestimate what two pictures share, by about (bins - 1)² / (2 · pixels) nats (Miller 1955).
    """
    return int(2 ** round(math.log2(pixels ** (1 / 3))))


def normalised_information(originals: NDArray[Any], others: NDArray[Any]) -> NDArray[np.float64]:
    """Normalised mutual information 2 I(X; Y) / (H(X) + H(Y)) of each picture with its other.

    X and Y are the two grey values at a position, in `information_bins` equal bins over [0, 1];
    the probabilities are frequencies over the picture's positions. The result is 1 if each value of
    one picture stands for one value of the other, and 0 if they are independent. It is also 1 for
    two pictures of a single value each.

    Args:
        originals, others: [N, C, H, W], C = 1 or 3; values beyond [0, 1] are clipped.

    Returns:
        float64 [N].
    """
    a, b = grey(originals).reshape(len(originals), -1), grey(others).reshape(len(others), -1)
    bins = information_bins(a.shape[1])
    digits = [np.minimum((x * bins).astype(int), bins - 1) for x in (a, b)]
    found = np.empty(len(a))
    for i, (x, y) in enumerate(zip(*digits, strict=True)):
        joint = np.bincount(x * bins + y, minlength=bins * bins).reshape(bins, bins) / len(x)
        h_x, h_y, h_xy = (_entropy(p) for p in (joint.sum(1), joint.sum(0), joint.ravel()))
        found[i] = 2 * (h_x + h_y - h_xy) / (h_x + h_y) if h_x + h_y > 0 else 1.0
    return found


def _entropy(p: NDArray[np.float64]) -> float:
    positive = p[p > 0]
    return float(-(positive * np.log(positive)).sum())


def colour_counts(pixels: NDArray[Any]) -> NDArray[np.int64]:
    """Pixels [N, C, H, W], clipped to [0, 1] → how many fall into each bin: [C, COLOUR_BINS]."""
    digits = np.minimum((pixels.clip(0, 1) * COLOUR_BINS).astype(int), COLOUR_BINS - 1)
    return np.stack(
        [np.bincount(d.ravel(), minlength=COLOUR_BINS) for d in np.moveaxis(digits, 1, 0)]
    ).astype(np.int64)


def colour_distance(a: NDArray[Any], b: NDArray[Any]) -> float:
    """The Wasserstein distance between two `colour_counts`, averaged over the channels.

    In units of a channel's range: 0.1 if values have to move by a tenth of it on average.
    """
    shares = [np.cumsum(counts / counts.sum(1, keepdims=True), 1) for counts in (a, b)]
    return float(np.abs(shares[0] - shares[1]).sum(1).mean() / COLOUR_BINS)


def spectra(pixels: NDArray[Any]) -> NDArray[np.float64]:
    """The power of grey values by spatial frequency, summed over the pictures.

    The mean is subtracted, a Hann window keeps the borders from acting as edges, and the squared
    magnitudes of the Fourier transform are averaged over rings one frequency wide: entry k is for
    k / H cycles per pixel, k = 0 … H / 2.

    Args:
        pixels: [N, C, H, H]; clipped to [0, 1].

    Returns:
        float64 [H // 2 + 1].
    """
    x = grey(pixels)
    side = x.shape[-1]
    window = np.hanning(side)
    x = (x - x.mean((1, 2), keepdims=True)) * window * window[:, None]
    power = (np.abs(np.fft.fft2(x)) ** 2).sum(0)
    frequency = np.fft.fftfreq(side, 1 / side)
    ring = np.rint(np.hypot(frequency[:, None], frequency)).astype(int)
    within = ring <= side // 2
    totals = np.bincount(ring[within], power[within], minlength=side // 2 + 1)
    return totals / np.bincount(ring[within], minlength=side // 2 + 1)
