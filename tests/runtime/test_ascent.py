"""Feature accentuation: its formula, step by step, against the closed form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnxplain.contract.explain import AscentDefaults
from onnxplain.errors import InputError
from onnxplain.export.methods import get_method
from onnxplain.runtime import accentuate, load


@pytest.fixture
def ascend(explainer, tiny):
    """The formula, written out for one sample at a time."""

    def run(x0, target, steps, alpha, eps, clip):
        pre = tiny.preprocessing()
        mean, std = (np.array(v)[:, None, None] for v in (pre.mean, pre.std))
        p0 = p = 2 * (x0.astype(np.float64) * std + mean) - 1
        for step in range(steps):
            x = ((p + 1) / 2 - mean) / std
            g = tiny.gradient(x[None], np.array([target]))[0] / (2 * std)
            moved = p + alpha * g / np.linalg.norm(g) - p0
            if eps is not None and np.linalg.norm(moved) > eps:
                moved *= eps / np.linalg.norm(moved)
            p = p0 + moved
            if clip == "each" or (clip == "last" and step == steps - 1):
                p = np.clip(p, -1, 1)
        return p0, p

    return run


@pytest.fixture
def photographs(x, tiny):
    """Normalised images whose pixels lie well within [-1, 1]."""
    return as_input(0.6 * np.tanh(x), tiny)


def as_input(pixels, tiny):
    pre = tiny.preprocessing()
    mean, std = (np.array(v)[:, None, None] for v in (pre.mean, pre.std))
    return (((pixels + 1) / 2 - mean) / std).astype(np.float32)


@pytest.mark.parametrize("clip", ["each", "last", "none"])
@pytest.mark.parametrize("eps", [100.0, 3.0, None])
def test_the_ascent_follows_the_formula(explainer, ascend, photographs, clip, eps):
    result = accentuate(explainer, photographs, [0, 3, 4], 4, alpha=2.0, eps=eps, clip=clip)
    for i, target in enumerate([0, 3, 4]):
        start, end = ascend(photographs[i], target, 4, 2.0, eps, clip)
        np.testing.assert_allclose(result.start[i], start, atol=1e-5)
        np.testing.assert_allclose(result.end[i], end, atol=1e-4)
    np.testing.assert_array_equal(result.difference, result.end - result.start)


@pytest.mark.parametrize(
    "options",
    [
        {"norm": 1.0, "alpha": 60.0, "eps": 150.0},
        {"norm": np.inf, "alpha": 0.1, "eps": 0.15},
        {"norm": 2.0, "alpha": 0.2, "eps": None, "relative": True},
        {"norm": 2.0, "alpha": 3.0, "eps": None, "normalise": False},
        {"norm": 2.0, "alpha": 2.0, "eps": 5.0, "away": True},
        {"norm": 2.0, "alpha": 9.0, "eps": None, "clip": 2},
        {"norm": 2.0, "alpha": 9.0, "eps": None, "margin": 0.25},
    ],
)
def test_the_authors_other_ascents_follow_their_formula(explainer, tiny, photographs, options):
    """Steps of any p-norm, relative to the pixels' norm, not normalised, away from the class."""
    found = accentuate(explainer, photographs, 3, 4, **options)
    pre = tiny.preprocessing()
    mean, std = (np.array(v)[:, None, None] for v in (pre.mean, pre.std))
    limit, p = 1 + options.get("margin", 0), options["norm"]
    for i, image in enumerate(photographs):
        start = pixels = 2 * (image.astype(np.float64) * std + mean) - 1
        for step in range(4):
            x = ((pixels + 1) / 2 - mean) / std
            g = tiny.gradient(x[None], np.array([3]))[0] / (2 * std)
            if options.get("away"):
                g = -g
            if options.get("normalise", True):
                g = g / np.linalg.norm(g.ravel(), p)
            if options.get("relative"):
                g = g * np.linalg.norm(pixels.ravel(), p)
            moved = pixels + options["alpha"] * g - start
            if options["eps"] is not None:
                moved *= min(1, options["eps"] / np.linalg.norm(moved.ravel(), p))
            pixels = start + moved
            if step % options.get("clip", 1) == options.get("clip", 1) - 1:
                pixels = pixels.clip(-limit, limit)
        np.testing.assert_allclose(found.end[i], pixels, atol=1e-4)


def test_a_method_ascends_as_its_authors_do(graph_file, photographs):
    """B3: semantic takes ten steps without a bound; others five, and at most 100."""
    explainer = load(graph_file())
    about = explainer.metadata
    for own in (AscentDefaults(10, 20.0, None), AscentDefaults(10, 20.0, 5.0)):
        explainer.metadata = about
        expected = accentuate(explainer, photographs, 0, own.steps, own.alpha, own.eps)
        explainer.metadata = replace(about, ascent=own)
        np.testing.assert_array_equal(accentuate(explainer, photographs, 0).end, expected.end)
    free = accentuate(explainer, photographs, 0, 10, alpha=20.0, eps=None)
    assert np.abs(free.end - expected.end).max() > 0.1  # the bound tells
    explainer.metadata = about
    five = accentuate(explainer, photographs, 0, 5, alpha=20.0, eps=100.0)
    np.testing.assert_array_equal(accentuate(explainer, photographs, 0).end, five.end)
    assert get_method("semantic").ascent == AscentDefaults(steps=10, eps=None)
    assert get_method("excitation").ascent == AscentDefaults(5, 20.0, 100.0)


def test_clipping_keeps_pixels_in_range_and_none_does_not(explainer, photographs):
    for clip in ("each", "last"):
        assert np.abs(accentuate(explainer, photographs, 0, clip=clip).end).max() <= 1
    assert np.abs(accentuate(explainer, photographs, 0, clip="none").end).max() > 1


def test_the_whole_displacement_stays_in_the_ball(explainer, photographs):
    result = accentuate(explainer, photographs, 0, steps=9, alpha=2, eps=5, clip="none")
    np.testing.assert_allclose(np.sqrt((result.difference**2).sum((1, 2, 3))), 5, rtol=1e-5)


def test_probabilities_before_and_after(explainer, tiny, photographs):
    result = accentuate(explainer, photographs, [3, 1, 2], alpha=1.0)
    for pixels, probabilities in ((result.start, result.before), (result.end, result.after)):
        expected = explainer(as_input(pixels, tiny), [3, 1, 2]).target_probabilities
        np.testing.assert_allclose(probabilities, expected, rtol=1e-4)
    assert (result.after != result.before).all()


def test_a_negative_target_is_looked_up_once(explainer, photographs):
    runner_up = explainer(photographs, -2).targets
    result = accentuate(explainer, photographs, -2, alpha=5.0)
    np.testing.assert_array_equal(result.targets, runner_up)
    expected = accentuate(explainer, photographs, runner_up, alpha=5.0)
    np.testing.assert_array_equal(result.end, expected.end)


def test_a_zero_gradient_moves_nothing(explainer, tiny):
    zeros = np.zeros((1, 3, tiny.height, tiny.width), np.float32)
    result = accentuate(explainer, zeros, 0)
    np.testing.assert_array_equal(result.difference, 0)


def test_a_faint_gradient_is_still_followed(explainer, tiny):
    faint = np.full((1, 3, tiny.height, tiny.width), 1e-22, np.float32)
    result = accentuate(explainer, faint, 0, steps=1, alpha=1.0, clip="none")
    np.testing.assert_allclose(np.linalg.norm(result.difference), 1, rtol=1e-5)


@pytest.mark.parametrize("variant", [{"layout": "NHWC"}, {"multi_target": True}, {"batch": 2}])
def test_every_variant_of_the_graph_ascends_alike(graph_file, explainer, photographs, variant):
    expected = accentuate(explainer, photographs, [0, 1, 2])
    images = photographs.transpose(0, 2, 3, 1) if "layout" in variant else photographs
    result = accentuate(load(graph_file(**variant)), images, [0, 1, 2])
    np.testing.assert_allclose(result.end, expected.end, atol=1e-4)
    assert result.before.shape == result.after.shape == result.targets.shape == (3,)


def test_progress_is_told_each_step(explainer, photographs):
    steps: list[int] = []
    accentuate(explainer, photographs, 0, steps=3, progress=steps.append)
    assert steps == [1, 2, 3]


@pytest.mark.parametrize(
    "bad",
    [
        {"steps": 0},
        {"alpha": 0.0},
        {"alpha": np.nan},
        {"eps": -1.0},
        {"eps": np.inf},
        {"clip": "sometimes"},
        {"clip": 0},
        {"norm": 0.5},
        {"margin": -0.1},
        {"margin": 0.1, "clip": "none"},
    ],
)
def test_parameters_that_cannot_be_used(explainer, photographs, bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        accentuate(explainer, photographs, 0, **bad)


def test_one_target_per_image(graph_file, photographs):
    with pytest.raises(InputError, match="one target per image"):
        accentuate(load(graph_file(multi_target=True)), photographs, [[0, 1]] * 3)
