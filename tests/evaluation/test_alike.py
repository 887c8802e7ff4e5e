"""Each measure of likeness against a formula written out, and at its ends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr

from onnxplain.errors import InputError
from onnxplain.evaluation import alike
from onnxplain.runtime import Explanation

RANDOM = np.random.default_rng(0)


def explanation(pullback: np.ndarray, predicted: int = 0) -> Explanation:
    logits = np.eye(3, dtype=np.float32)[[predicted]]
    photograph = np.zeros((1, *pullback.shape[1:], 3), np.uint8)
    return Explanation(logits, pullback[None], np.zeros(1, np.int64), photograph, ())


ONE = RANDOM.standard_normal((3, 20, 24))
OTHER = ONE + RANDOM.standard_normal(ONE.shape)


@pytest.mark.parametrize("name", alike.MEASURES)
def test_what_is_equal_is_1_whatever_its_scale(name: str) -> None:
    found = alike.MEASURES[name].compare(explanation(ONE), explanation(3 * ONE))
    assert found == pytest.approx(1)


@pytest.mark.parametrize("name", ["cosine", "rank", "ssim", "top"])
def test_what_is_unlike_is_below_every_threshold(name: str) -> None:
    measure = alike.MEASURES[name]
    unlike = explanation(RANDOM.standard_normal(ONE.shape))
    assert measure.compare(explanation(ONE), unlike) < measure.least


def test_the_cosine_has_the_signs() -> None:
    assert alike.cosine(explanation(ONE), explanation(-ONE)) == pytest.approx(-1)
    right = (ONE * OTHER).sum() / np.sqrt((ONE**2).sum() * (OTHER**2).sum())
    assert alike.cosine(explanation(ONE), explanation(OTHER)) == pytest.approx(right)


def test_the_rank_correlation_is_scipys_with_ties_too() -> None:
    for one, other in ((ONE, OTHER), (ONE.round(), OTHER.round())):
        strengths = [np.abs(each).sum(0).ravel() for each in (one, other)]
        found = alike.rank_correlation(explanation(one), explanation(other))
        assert found == pytest.approx(spearmanr(*strengths).statistic)
    flat = explanation(np.ones_like(ONE))
    assert alike.rank_correlation(flat, flat) == 1
    assert alike.rank_correlation(flat, explanation(ONE)) == 0


def test_the_structural_similarity_is_wangs_formula() -> None:
    """Means and variances under a Gaussian of sigma 1.5 and 11 pixels; K1 = 0.01, K2 = 0.03."""

    def mean(values: np.ndarray) -> np.ndarray:
        return gaussian_filter(values, 1.5, truncate=3.5)

    one, other = explanation(ONE), explanation(OTHER)
    x, y = (each.heatmap()[0].astype(np.float64) for each in (one, other))
    mx, my = mean(x), mean(y)
    vx, vy, vxy = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    top = (2 * mx * my + 0.01**2) * (2 * vxy + 0.03**2)
    map_ = top / ((mx**2 + my**2 + 0.01**2) * (vx + vy + 0.03**2))
    inner = map_[5:-5, 5:-5].mean()
    assert alike.similarity(one, other) == pytest.approx(inner, abs=1e-5)
    with pytest.raises(InputError, match="images of 11 pixels or more, not of 9 × 20"):
        alike.similarity(*[explanation(ONE[..., :9])] * 2)


def test_the_intersection_counts_the_pixels_that_both_have_on_top() -> None:
    """5 % of 20 × 20 are 20 pixels: rows 0 of both share all, rows 0 and 1 none, half a row half"""
    maps = np.zeros((3, 1, 20, 20))
    maps[0, 0, 0], maps[1, 0, 1] = -1, 1
    maps[2, 0, 0, :10] = maps[2, 0, 1, :10] = 1
    one, *others = (explanation(each) for each in maps)
    assert [alike.intersection(one, each) for each in (one, *others)] == [1, 0, 0.5]


def test_the_class_is_the_predicted_one_not_the_explained() -> None:
    assert alike.same_class(explanation(ONE, 1), replace(explanation(OTHER, 1))) == 1
    assert alike.same_class(explanation(ONE, 1), explanation(ONE, 2)) == 0
