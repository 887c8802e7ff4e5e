"""What a caller may call a target."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxplain.errors import InputError
from onnxplain.runtime import load
from onnxplain.runtime.inputs.targets import as_indices, find_class


def explained(explainer, x, targets):
    return explainer(x, targets).targets.tolist()


# Indices


def test_no_target_is_the_predicted_class(explainer, tiny, x):
    predicted = tiny.logits(x).argmax(axis=1)
    assert len(set(predicted)) > 1
    assert explained(explainer, x, None) == predicted.tolist()


def test_one_target_is_for_all_images(explainer, x):
    assert explained(explainer, x, 3) == [3, 3, 3]
    assert explained(explainer, x, np.int32(3)) == [3, 3, 3]


@pytest.mark.parametrize("kind", [list, tuple, np.array, lambda t: np.array(t, np.uint8)])
def test_one_target_per_image(explainer, x, kind):
    assert explained(explainer, x, kind([2, 0, 4])) == [2, 0, 4]


def test_negative_target_counts_from_the_top_of_the_ranking(explainer, tiny, x):
    ranking = np.argsort(-tiny.logits(x), axis=1)
    for rank in range(tiny.classes):
        explanation = explainer(x, -1 - rank)
        np.testing.assert_array_equal(explanation.targets, ranking[:, rank])
        np.testing.assert_allclose(
            explanation.pullback, tiny.gradient(x, ranking[:, rank]), rtol=1e-5
        )


def test_equal_logits_are_ranked_as_the_graph_ranks_them(explainer, tiny, x):
    x[:] = np.sqrt(np.array([0.1, 0, 0])[:, None, None])  # logits 0.2, -0.2, 0.2, 0.2, 0.45
    assert len(set(np.round(explainer(x).logits[0], 6).tolist())) == 3
    for target in range(-tiny.classes, 0):
        explanation = explainer(x, target)
        np.testing.assert_allclose(
            explanation.pullback, tiny.gradient(x, explanation.targets), rtol=1e-5
        )


@pytest.mark.parametrize("target", [5, -6, 2**40, 2**70, -(2**70)])
def test_a_target_out_of_range_is_told_the_range(explainer, x, target):
    with pytest.raises(InputError, match=r"5 classes.* from 0 to 4, or from -1 .* down to -5"):
        explainer(x, [0, target, 0])


@pytest.mark.parametrize("target", [1.0, True, np.float32(1), np.array([True, False, True]), {}])
def test_a_target_of_another_type(explainer, x, target):
    with pytest.raises(InputError, match="a class index or a class name"):
        explainer(x, target)


@pytest.mark.parametrize("targets", [[0, 1], [], [0, 1, 2, 3], np.zeros((0,), int)])
def test_targets_of_another_length(explainer, x, targets):
    with pytest.raises(InputError, match=r"the shape \[3\], not"):
        explainer(x, targets)


def test_several_targets_need_a_graph_exported_for_them(explainer, x):
    with pytest.raises(InputError, match="export it with multi_target=True"):
        explainer(x, [[0, 1]] * 3)


# Several per image


@pytest.fixture
def multi(graph_file):
    return load(graph_file(multi_target=True))


def test_several_targets_are_explained_at_once(multi, tiny, x):
    explanation = multi(x, [[0, -1], [1, -2], ["espresso", 3]])
    ranking = np.argsort(-tiny.logits(x), axis=1)
    expected = np.array([[0, ranking[0, 0]], [1, ranking[1, 1]], [4, 3]])
    np.testing.assert_array_equal(explanation.targets, expected)
    assert explanation.pullback.shape == (3, 2, *x.shape[1:])
    for k in range(2):
        np.testing.assert_allclose(
            explanation.pullback[:, k], tiny.gradient(x, expected[:, k]), rtol=1e-5
        )


@pytest.mark.parametrize("targets", [None, -1, [-1, -1, -1], [[-1]] * 3])
def test_one_target_per_image_is_several_of_one(multi, tiny, x, targets):
    assert explained(multi, x, targets) == tiny.logits(x).argmax(axis=1)[:, None].tolist()


@pytest.mark.parametrize("targets", [[[0, 1]], [[], [], []], [[[0]]] * 3, [0, 1]])
def test_several_targets_of_another_shape(multi, x, targets):
    with pytest.raises(InputError, match=r"\[3\] or \[3, K\]"):
        multi(x, targets)


@pytest.mark.parametrize("targets", [[[0], [0, 1], [0]], [0, [1], 2]])
def test_every_image_has_the_same_number_of_targets(multi, x, targets):
    with pytest.raises(InputError, match="same number of targets"):
        multi(x, targets)


# Names


@pytest.mark.parametrize("name", ["espresso", "ESPRESSO", "press"])
def test_a_class_name_or_a_unique_part_of_it_in_any_case(explainer, x, name):
    assert explained(explainer, x, name) == [4, 4, 4]


def test_names_and_indices_can_be_mixed(explainer, x):
    assert explained(explainer, x, ["tabby", 1, "espresso"]) == [0, 1, 4]
    assert explained(explainer, x, np.array(["tabby", "egypt", "espresso"])) == [0, 1, 4]


def test_the_whole_name_goes_before_a_part(graph_file, x):
    explainer = load(graph_file(labels=("black cat", "cat", "a", "b", "c")))
    assert explained(explainer, x, "cat") == [1, 1, 1]


def test_an_ambiguous_part_is_answered_with_the_candidates(explainer, x):
    with pytest.raises(InputError, match=r"ambiguous.*: tabby cat \(0\), Egyptian cat \(1\)$"):
        explainer(x, "cat")


def test_two_classes_of_one_name_are_told_apart_by_index(explainer, x):
    with pytest.raises(InputError, match=r"ambiguous.*: crane \(2\), crane \(3\)$"):
        explainer(x, "crane")


def test_at_most_five_candidates_are_named():
    with pytest.raises(InputError, match=r"cat 4 \(4\), …$"):
        find_class("cat", [f"cat {i}" for i in range(9)])


def test_an_unknown_name_is_answered_with_the_closest(explainer, x):
    with pytest.raises(InputError, match=r"'expresso' is unknown; closest: espresso \(4\)$"):
        explainer(x, "expresso")
    with pytest.raises(InputError, match=r"'zzz' is unknown$"):
        explainer(x, "zzz")


def test_a_file_without_class_names_takes_indices_only(graph_file, x):
    with pytest.raises(InputError, match="no class names"):
        load(graph_file(labels=()))(x, "espresso")


def test_a_list_in_itself_is_none_of_targets():
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(InputError, match="lists in a list"):
        as_indices(endless, 1, 3, (), True)
