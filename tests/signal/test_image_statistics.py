"""Information, colours, frequencies and the order, on cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import normalized_mutual_info_score

from onnxplain.signal import image_statistics
from onnxplain.signal.data import open_data
from onnxplain.signal.measurement import Measurement
from onnxplain.signal.order import find_order
from onnxplain.signal.results import results_of

RANDOM = np.random.default_rng(0)


def test_information_is_that_of_scikit_learn() -> None:
    x = RANDOM.random((3, 1, 32, 32))
    y = (x + RANDOM.normal(0, 0.1, x.shape)).clip(0, 1)
    bins = image_statistics.information_bins(32 * 32)
    assert bins == 8
    cut = [np.minimum((a * bins).astype(int), bins - 1).reshape(3, -1) for a in (x, y)]
    expected = [normalized_mutual_info_score(a, b) for a, b in zip(*cut, strict=True)]
    assert image_statistics.normalised_information(x, y) == pytest.approx(expected)


def test_information_is_1_of_a_picture_with_itself_and_its_negative() -> None:
    x = (RANDOM.integers(0, 8, (2, 1, 32, 32)) + 0.5) / 8
    assert image_statistics.normalised_information(x, x) == pytest.approx([1, 1])
    assert image_statistics.normalised_information(x, 1 - x) == pytest.approx([1, 1])


def test_information_is_near_0_of_independent_pictures() -> None:
    x, y = RANDOM.random((2, 2, 3, 224, 224))
    assert (image_statistics.normalised_information(x, y) < 0.01).all()


def test_colour_distance_is_how_far_values_move() -> None:
    x = RANDOM.random((4, 3, 16, 16)) * 0.5
    a, b = image_statistics.colour_counts(x), image_statistics.colour_counts(x + 0.25)
    assert a.sum() == x.size
    assert image_statistics.colour_distance(a, a) == 0
    assert image_statistics.colour_distance(a, b) == pytest.approx(0.25)


def test_a_wave_stands_at_its_frequency() -> None:
    at = np.arange(32)
    wave = 0.5 + 0.4 * np.sin(2 * np.pi * 6 * at / 32)
    power = image_statistics.spectra(np.broadcast_to(wave, (1, 1, 32, 32)))
    assert power.shape == (17,)
    assert power.argmax() == 6
    assert power[10:].sum() < 0.01 * power.sum()


def answers(accuracy: list[list[float]], pictures: int = 400) -> np.ndarray:
    """Answers that are right for the first pictures, as many as the accuracy says."""
    table = np.array(accuracy)
    return np.arange(pictures) < (table * pictures)[..., None]


def test_a_chain_is_a_total_order() -> None:
    order = find_order(answers([[0.9, 0.9, 0.9], [0.7, 0.9, 0.9], [0.5, 0.7, 0.9]]))
    assert order.groups == [[0], [1], [2]]
    assert order.above == [(0, 1), (1, 2)]
    assert order.verdict == "a total order"
    assert order.stability == 1


def test_classifiers_that_serve_each_other_are_one_group() -> None:
    order = find_order(answers([[0.9, 0.9, 0.9], [0.9, 0.9, 0.9], [0.5, 0.6, 0.9]]))
    assert order.groups == [[0, 1], [2]]
    assert order.above == [(0, 1)]


def test_there_is_none_where_all_serve_all_or_none_serves_another() -> None:
    every = find_order(answers([[0.9, 0.9], [0.9, 0.9]]))
    assert every.verdict == "none: every classifier's signal serves every other"
    nobody = find_order(answers([[0.9, 0.5], [0.5, 0.9]]))
    assert nobody.verdict == "none: no classifier's signal serves another"
    assert not every.above
    assert not nobody.above


def test_a_relation_that_is_not_transitive_is_no_order() -> None:
    order = find_order(answers([[0.9, 0.9, 0.5], [0.5, 0.9, 0.9], [0.5, 0.5, 0.9]]))
    assert order.verdict == "none: the relation is not transitive"
    assert not order.above


def test_a_relation_whose_one_missing_pair_is_undecided_may_be_transitive() -> None:
    right = answers([[0.9, 0.9, 0.9], [0.5, 0.9, 0.9], [0.5, 0.5, 0.9]], 200)
    right[0, 2] = np.roll(right[0, 2], 10)  # as often right, about other pictures
    right[0, 2, :3] = False
    order = find_order(right)
    assert order.undecided[0, 2]
    assert order.verdict == "none: the data cannot tell whether the relation is transitive"


def test_a_difference_within_chance_is_undecided() -> None:
    right = answers([[0.9, 0.9], [0.9, 0.9]], 200)
    right[0, 1] = np.roll(right[0, 1], 10)  # right as often, about other pictures
    right[0, 1, :3] = False
    order = find_order(right)
    assert order.undecided[0, 1]
    assert "cannot tell" in order.verdict
    assert order.low[0, 1] < order.difference[0, 1] < order.high[0, 1]
    assert order.stability < 1


def test_the_bootstrap_is_deterministic_under_a_seed() -> None:
    right = RANDOM.random((3, 3, 100)) < 0.8
    first, again = find_order(right, 1), find_order(right, 1)
    assert np.array_equal(first.confidence, again.confidence)
    assert np.array_equal(first.low, again.low)


def test_what_is_kept_of_no_accuracy_is_unknown() -> None:
    def measured(right: list[float]) -> Measurement:
        answered = np.arange(4) < 4 * np.array(right)[:, None]
        ones, none = np.ones(4), np.array([], int)
        return Measurement(answered, ones, ones, np.ones((1, 64), int), np.ones(17), none)

    signals = {"originals": [0.0, 1.0], "untuned": [0.0, 0.5], "a": [0.0, 0.5], "b": [0.5, 0.5]}
    found = {name: measured(right) for name, right in signals.items()}
    results = results_of(["a", "b"], found, {"a": 1, "b": 1}, open_data("digits", 32), 0, [])
    assert results.kept == [None, 0.5]
    assert results.to_dict()["kept"] == [None, 0.5]
