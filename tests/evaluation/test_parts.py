"""The parts of an evaluation by themselves: intervals, losses, answers that are computed later."""

from __future__ import annotations

import captum.metrics
import numpy as np
import pytest
import torch

from onnxplain.cli.evaluate import _table
from onnxplain.errors import InputError
from onnxplain.evaluation.deferred import Deferred, Remembered, Together
from onnxplain.evaluation.metrics import HIGHER, Metric, optimal_beta, part
from onnxplain.evaluation.page import _row, ranked
from onnxplain.evaluation.result import Evaluation
from onnxplain.evaluation.statistics import differences, estimates
from onnxplain.evaluation.store import Score


def test_the_best_beta_is_captums() -> None:
    """Of a linear network, whose perturbations Captum is given."""
    random = np.random.default_rng(0)
    w, attribution = random.standard_normal((2, 6)).astype(np.float32)
    x = torch.from_numpy(random.standard_normal((1, 6)).astype(np.float32))
    steps = torch.from_numpy(random.standard_normal((8, 6)).astype(np.float32))
    right = captum.metrics.infidelity(
        lambda inputs: (inputs @ torch.from_numpy(w)).tanh(),
        lambda inputs: (steps, inputs - steps),
        x,
        torch.from_numpy(attribution)[None],
        n_perturb_samples=8,
        max_examples_per_batch=None,
        normalize=True,
    )
    before, after = np.tanh(x.numpy() @ w), np.tanh((x - steps).numpy() @ w)
    found = optimal_beta(a=(before - after)[None], b=(steps.numpy() @ attribution)[None])
    np.testing.assert_allclose(found, right.numpy(), rtol=1e-4)
    np.testing.assert_allclose(optimal_beta(np.array([1.0, 2.0]), np.zeros(2)), 2.5)


@pytest.mark.parametrize(
    ("sides", "parts", "side"),
    [((224, 224), 4, 56), ((224, 224), 2, 112), ((299, 299), 4, 23), ((32, 48), 2, 16)],
)
def test_patches_tile_the_image(sides: tuple[int, int], parts: int, side: int) -> None:
    assert part(*sides, parts) == side
    assert sides[0] % side == sides[1] % side == 0


def test_an_image_that_no_patches_tile_is_a_sentence() -> None:
    with pytest.raises(InputError, match="none does one of 9 × 7"):
        part(7, 9, 4)


def test_answers_are_computed_together_when_one_is_looked_at() -> None:
    runs: list[int] = []

    def run(images: np.ndarray) -> np.ndarray:
        runs.append(len(images))
        return np.stack([images.sum(1), images.prod(1)], axis=1)

    ask = Together(run, 4)
    images = np.arange(1, 15, dtype=float).reshape(7, 2)
    first, *others = [ask(image[None])[[0], [0]] for image in images]
    apart = [first - other for other in others]
    assert runs == [4]
    np.testing.assert_allclose(np.stack(apart, axis=1), [-4.0 * np.arange(1, 7)])
    assert runs == [4, 3]
    assert np.abs(first - 5).item() == 2
    assert (1 / others[0] == np.array([1 / 7])).all()
    assert isinstance(ask(images[:1]), Deferred)
    assert ask(images[:2]).argmax() == 3
    assert runs == [4, 3, 3]


def test_an_image_that_was_asked_for_lately_is_not_run_again() -> None:
    ran: list[list[float]] = []

    def doubled(images: np.ndarray) -> np.ndarray:
        ran.append(images.ravel().tolist())
        return 2 * images

    remembered = Remembered(doubled, most=3)

    def asked(*images: float) -> list[float]:
        return remembered(np.array(images)[:, None]).ravel().tolist()

    assert asked(1, 2, 1) == [2, 4, 2]
    assert asked(2, 3) == [4, 6]
    assert asked(1, 4) == [2, 8]
    assert asked(3, 2, 1) == [6, 4, 2]
    assert ran == [[1, 2], [3], [4], [2]]


def test_an_interval_holds_the_means_of_resampled_images() -> None:
    """Of a normal sample, mean ± 1.96 s/√n; and the same images are drawn for all rows."""
    random = np.random.default_rng(1)
    hard = random.standard_normal(400)
    scores = np.stack([hard, hard + 0.05, np.full(400, np.nan)])
    scores[0, 7] = np.nan
    first, second, none = estimates(scores)
    half = 1.96 * np.nanstd(scores[0], ddof=1) / np.sqrt(399)
    mean = np.nanmean(scores[0])
    assert first.count == 399
    np.testing.assert_allclose(
        [first.mean, first.low, first.high], [mean, mean - half, mean + half], atol=0.02
    )
    assert first.low < second.mean < first.high  # not told apart one by one, but in pairs
    assert none.count == 0
    apart = differences(scores, 0)[1]
    np.testing.assert_allclose([apart.mean, apart.low, apart.high], 0.05)
    assert apart.count == 399


def test_images_are_ranked_by_all_metrics() -> None:
    metrics = tuple(Metric(name, "", HIGHER, "") for name in ("a", "b"))
    given = {"a": [0.1, 0.9, None], "b": [5.0, 7.0, 6.0]}
    scores = [
        Score("", "g", "", str(i), 0, m.name, given[m.name][i]) for i in range(3) for m in metrics
    ]
    evaluation = Evaluation(("g",), metrics, ("0", "1", "2"), tuple(scores), 0)
    assert ranked(evaluation, 0) == [1, 2, 0]
    assert evaluation.problems_said() == ["a of 2 by g: "]


def evaluated(rows: list[list[float | None]], why: str = "") -> Evaluation:
    """Of one metric, of which more is better; a row for each graph."""
    names = [f"g{i}" for i in range(len(rows))]
    images = tuple(f"{i}.png" for i in range(len(rows[0])))
    scores = [
        Score("", name, "", image, 0, "a", row[i], "" if row[i] is not None else why)
        for i, image in enumerate(images)
        for name, row in zip(names, rows, strict=True)
    ]
    return Evaluation(tuple(names), (Metric("a", "", HIGHER, ""),), images, tuple(scores), 0)


def test_graphs_that_lack_scores_are_compared_on_the_images_that_they_share() -> None:
    """The second is better on each image that both have; the first lacks the hard ones, and so has
    the greater mean."""
    found = evaluated([[0.5, 0.6, None, None], [0.7, 0.7, 0.0, 0.1], [None] * 4])
    assert found.estimates("a")[0].mean > found.estimates("a")[1].mean
    assert found.best("a") == 1
    assert found.to_json()["metrics"]["a"]["best"] == "g1"
    assert found.uneven("a")
    assert [one.count for one in found.behind("a")] == [2, 4, 0]
    np.testing.assert_allclose(found.behind("a")[0].mean, -0.15)
    assert found.tied("a") == [False, True, False]
    assert not evaluated([[0.5, None], [0.7, None], [None, None]]).uneven("a")
    apart = evaluated([[0.5, None], [None, 0.7]])
    assert apart.best("a") is apart.to_json()["metrics"]["a"]["best"] is None


def test_a_table_says_of_how_many_images_a_mean_is_where_graphs_differ() -> None:
    uneven = evaluated([[0.5, 0.6, None], [0.7, 0.7, 0.1]])
    assert [cell.count("n = 2") for cell in cells(uneven)] == [1, 0]
    assert [cell.count("n = 3") for cell in cells(uneven)] == [0, 1]
    assert "n = " not in "".join(cells(evaluated([[0.5, None], [0.7, None]])))
    page = _row(uneven, uneven.metrics[0])
    assert page.index("n = 2") < page.index("n = 3")


def cells(evaluation: Evaluation) -> list[str]:
    return [str(next(iter(column.cells))) for column in _table(evaluation).columns[1:]]


def test_a_reason_that_is_the_same_for_all_is_said_once() -> None:
    found = evaluated([[None, None, 0.3], [None, 0.2, None]], "there is one class")
    assert found.problems_said() == ["a of 3 images by 2 graphs: there is one class"]
