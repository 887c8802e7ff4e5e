"""How alike two explanations of one image are: a table of measures, each 1 for equal ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import InputError
from onnxplain.runtime.cosines import cosines
from onnxplain.runtime.explanation import Explanation
from onnxplain.runtime.pictures.render import heatmap

Compare: TypeAlias = Callable[[Explanation, Explanation], float]

TOP = 0.05
"""The share of the pixels whose intersection is measured."""


@dataclass(frozen=True)
class Measure:
    """
    Attributes:
        name: as the command line and the tables call it.
        least: below which the two have drifted apart, unless it is told otherwise; docs/drift.md
            has what it was chosen by.
        help: what it says.
        compare: explanations of one image, the reference's first, to a number of at most 1.
    """

    name: str
    least: float
    help: str
    compare: Compare


def cosine(reference: Explanation, new: Explanation) -> float:
    """Of the pullbacks, signs and channels included."""
    return float(cosines(reference.pullback, new.pullback)[0])


def rank_correlation(reference: Explanation, new: Explanation) -> float:
    """Spearman's, of the pixels by strength: Pearson's of their ranks, of equal ones the mean's.

    Of two maps of one value it is 1, of one such map 0.
    """
    from scipy.stats import rankdata

    ranks = [rankdata(strength(one)) for one in (reference, new)]
    centred = [(each - each.mean())[None] for each in ranks]
    return float(cosines(*centred)[0])


def similarity(reference: Explanation, new: Explanation) -> float:
    """The structural similarity (SSIM) of the heatmaps as they are shown, with the Gaussian window
    of Wang et al., Image Quality Assessment, IEEE Transactions on Image Processing 13 (4), 2004.

    Raises:
        InputError: the image is smaller than that window, 11 pixels.
    """
    from skimage.metrics import structural_similarity

    maps = [heatmap(one.pullback)[0] for one in (reference, new)]
    if min(maps[0].shape) < _WINDOW:
        raise InputError(
            f"the structural similarity is of images of {_WINDOW} pixels or more, not of "
            f"{maps[0].shape[1]} × {maps[0].shape[0]}"
        )
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return float(structural_similarity(*maps, data_range=1.0, **window))


_WINDOW = 11


def intersection(reference: Explanation, new: Explanation) -> float:
    """The share of the strongest 5 % of the pixels that is the same in both (Ghorbani et al.,
    Interpretation of Neural Networks is Fragile, AAAI 2019, with their 1,000 of 224 × 224)."""
    strengths = [strength(one) for one in (reference, new)]
    count = max(1, round(TOP * strengths[0].size))
    right, found = (np.argpartition(-each, count - 1)[:count] for each in strengths)
    return len(np.intersect1d(right, found)) / count


def same_class(reference: Explanation, new: Explanation) -> float:
    """1 where both predict the same class, else 0."""
    return float(reference.logits[0].argmax() == new.logits[0].argmax())


def strength(explanation: Explanation) -> NDArray[Any]:
    """Of each pixel: the sum over the channels of the pullback's magnitudes, [H·W]."""
    strengths: NDArray[Any] = np.abs(np.asarray(explanation.pullback[0], np.float64)).sum(0)
    return strengths.reshape(-1)


CLASS = "class"

MEASURES: Mapping[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure("cosine", 0.7, "cosine of the pullbacks, with their signs", cosine),
        Measure("rank", 0.7, "Spearman's rank correlation of the pixels", rank_correlation),
        Measure("ssim", 0.8, "structural similarity of the heatmaps", similarity),
        Measure("top", 0.5, "the strongest 5 % of the pixels that both share", intersection),
        Measure(CLASS, 1.0, "1 where the predicted class is the same", same_class),
    )
}
