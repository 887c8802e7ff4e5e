"""What can be read off an explanation, and how it becomes a file."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from onnxplain.errors import InputError
from onnxplain.runtime import Explanation, load


@pytest.fixture
def explanation(explainer, x) -> Explanation:
    return explainer(x, [4, 1, 0])


@pytest.fixture
def several(graph_file, x) -> Explanation:
    return load(graph_file(multi_target=True))(x, [[4, 0], [1, 2], [0, 3]])


def of_pullback(pullback: np.ndarray) -> Explanation:
    n, _, height, width = pullback.shape
    return Explanation(
        logits=np.zeros((n, 2), np.float32),
        pullback=pullback,
        targets=np.zeros(n, np.int64),
        photographs=np.zeros((n, height, width, 3), np.uint8),
        class_names=(),
    )


# Numbers and names


def test_probabilities_are_the_softmax_of_the_logits(explanation):
    powers = np.exp(explanation.logits.astype(np.float64))
    np.testing.assert_allclose(
        explanation.probabilities, powers / powers.sum(axis=1, keepdims=True), rtol=1e-5
    )


def test_probabilities_of_great_logits_are_finite():
    explanation = of_pullback(np.zeros((1, 3, 4, 4)))
    explanation.logits[:] = [[1e5, -1e5]]
    assert explanation.probabilities.tolist() == [[1, 0]]


def test_target_probabilities(explanation, several):
    probabilities = explanation.probabilities
    assert explanation.target_probabilities.tolist() == [
        probabilities[0, 4],
        probabilities[1, 1],
        probabilities[2, 0],
    ]
    assert several.target_probabilities.shape == (3, 2)
    assert several.target_probabilities[2, 1] == several.probabilities[2, 3]


def test_labels_fall_in_probability(explanation, tiny):
    for row, ranked in zip(explanation.probabilities, explanation.labels(), strict=True):
        assert [p for _, p in ranked] == sorted(row.tolist(), reverse=True)
        assert ranked[0][0] == tiny.labels[row.argmax()]
    assert [len(ranked) for ranked in explanation.labels(k=2)] == [2, 2, 2]


def test_names_are_the_targets(explanation, several):
    assert explanation.names == ["espresso", "Egyptian cat", "tabby cat"]
    assert several.names[0] == ["espresso", "tabby cat"]


def test_a_class_without_a_name_is_its_index(graph_file, x):
    explanation = load(graph_file(labels=()))(x, 4)
    assert explanation.names == ["4", "4", "4"]
    assert sorted(name for name, _ in explanation.labels()[0]) == ["0", "1", "2", "3", "4"]


def test_indexing_gives_the_explanation_of_one_image(explanation):
    assert len(explanation) == 3
    for one, names in zip(explanation, explanation.names, strict=True):
        assert len(one) == 1
        assert one.names == [names]
    np.testing.assert_array_equal(explanation[-1].pullback[0], explanation.pullback[2])
    with pytest.raises(IndexError):
        explanation[3]


# Heatmap


def test_a_heatmap_lies_in_zero_to_one(explanation, several, tiny):
    heat = explanation.heatmap()
    assert heat.dtype == np.float32
    assert heat.shape == (3, tiny.height, tiny.width)
    assert heat.min() >= 0
    np.testing.assert_array_equal(heat.max(axis=(1, 2)), 1)
    assert several.heatmap().shape == (3, 2, tiny.height, tiny.width)
    np.testing.assert_allclose(several.heatmap()[:, 0], heat, rtol=1e-4, atol=1e-6)


def test_a_heatmap_sums_strength_over_channels_whatever_the_sign():
    pullback = np.zeros((1, 3, 100, 100))
    pullback[0, :, :, :50] = np.array([1, -1, 1])[:, None, None]
    pullback[0, 0, :, 50:] = 1.5
    heat = of_pullback(pullback).heatmap()[0]
    np.testing.assert_allclose(heat[:, :30], 1, atol=1e-6)
    np.testing.assert_allclose(heat[:, 70:], 0.5, atol=1e-6)


def test_a_heatmap_is_smoothed_by_two_per_cent_of_the_shorter_side():
    pullback = np.zeros((1, 1, 100, 150))
    pullback[0, 0, 50, 75] = 1
    heat = of_pullback(pullback).heatmap(percentile=100)[0].astype(float)
    fall = heat[50, 83] / heat[50, 82]
    np.testing.assert_allclose(fall, np.exp((7**2 - 8**2) / (2 * 2**2)), rtol=1e-5)
    np.testing.assert_allclose(heat[58, 75], heat[50, 83], rtol=1e-5)


def test_a_heatmap_is_made_as_asked():
    pullback = np.zeros((1, 2, 40, 40))
    pullback[0, 0, :, :20], pullback[0, 0, 5, 30] = 1, -4
    heat = of_pullback(pullback).heatmap(signed=True, smoothing=0, percentile=100)
    assert (heat[0, :, :20] == 0.25).all()
    assert heat[0, 5, 30] == heat.min() == -1
    with pytest.raises(InputError, match="smoothing must be at least 0"):
        of_pullback(pullback).heatmap(smoothing=-1)


def test_smoothing_does_not_darken_the_borders():
    np.testing.assert_allclose(of_pullback(np.ones((1, 3, 50, 50))).heatmap(), 1, atol=1e-6)


def test_a_pullback_of_zeros_has_a_heatmap_of_zeros():
    assert not of_pullback(np.zeros((1, 3, 8, 8))).heatmap().any()


# Files


@pytest.mark.parametrize("style", ["pullback", "heatmap", "overlay"])
def test_images_are_rows_and_targets_columns(several, tiny, tmp_path, style):
    several.save(tmp_path / "a.png", style, captions=False)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (2 * 32 * tiny.width, 3 * 32 * tiny.height)


@pytest.mark.parametrize("give", [str, Image.open, lambda path: np.asarray(Image.open(path))])
def test_a_picture_is_of_the_whole_photograph(explainer, tmp_path, give):
    """The network takes 8 × 6 pixels of it."""
    path = tmp_path / "photograph.png"
    pixels = np.random.default_rng(0).integers(0, 256, (240, 300, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    explanation = explainer([give(path), give(path)], [1, 2])
    assert explanation[1].draw("overlay").size == (300, 240)
    assert explanation[:1].draw("heatmap", longest=100).size == (100, 80)
    assert explanation[1].draw("overlay", size="network").size == (256, 192)
    beyond = np.asarray(explanation[1].draw("pullback"))[:, :5]
    assert (beyond == 128).all()  # which the network did not see
    assert explanation.draw("overlay", captions=False).size == (300, 480)


def test_photographs_of_unlike_sizes_are_shown_as_seen(explainer):
    shapes = ((240, 300, 3), (300, 240, 3))
    explanation = explainer([np.zeros(shape, np.uint8) for shape in shapes])
    assert explanation.draw("overlay", captions=False).size == (256, 2 * 192)


def test_floats_have_no_photograph(explanation):
    assert explanation[0].draw("overlay").size == (256, 192)


def test_a_caption_says_class_number_and_method(explanation):
    (row, *_) = explanation.rows()
    shown = f"{explanation.target_probabilities[0]:.1%}"
    assert row.caption(0) == f"espresso\n{shown}\ngradient, temperature 0.5"


def test_a_colour_bar_stands_below_its_map(explanation):
    plain = explanation[0].draw("heatmap", captions=False)
    barred = np.asarray(explanation[0].draw("heatmap", captions=False, colour_bar=True))
    assert barred.shape[0] > plain.height + 20
    middle = barred[barred.shape[0] // 2 :].reshape(-1, 3).astype(int)
    assert len(np.unique(middle, axis=0)) > 100  # the colours and their scale


def test_a_colour_bar_brings_no_caption_with_it(explanation):
    barred = explanation[0].draw("heatmap", colour_bar=True)
    assert barred == explanation[0].draw("heatmap", colour_bar=True, captions=False)
    assert barred.height < explanation[0].draw("heatmap", colour_bar=True, captions=True).height


def test_help_says_how_pictures_are_drawn():
    for name in ("style", "colours", "percentile", "colour_bar"):
        assert f"{name}: " in str(Explanation.draw.__doc__) or name == "style"


def test_a_grid_has_three_columns_and_room_for_text(explanation, several, tmp_path):
    explanation[0].save(tmp_path / "one.png", "grid")
    explanation.save(tmp_path / "three.png", "grid")
    several.save(tmp_path / "wide.png", "grid")
    sizes = [Image.open(tmp_path / f"{name}.png").size for name in ("one", "three", "wide")]
    assert sizes[0][0] >= 3 * 192
    assert sizes[1][0] == sizes[0][0]
    assert sizes[1][1] > 2.5 * sizes[0][1]
    assert sizes[2][0] > 1.6 * sizes[1][0]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG", ".webp", ".tiff"])
def test_the_suffix_decides_the_format(explanation, tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    explanation.save(path)
    with Image.open(path) as picture:
        assert picture.format == Image.registered_extensions()[suffix.lower()]


def test_the_default_style_is_the_pullback(explanation, tmp_path):
    explanation.save(tmp_path / "a.png")
    explanation.save(tmp_path / "b.png", style="pullback")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_saving_replaces_a_file_and_leaves_nothing_else(explanation, tmp_path):
    (tmp_path / "a.png").write_text("old")
    explanation.save(str(tmp_path / "a.png"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    Image.open(tmp_path / "a.png").load()


def test_an_unknown_style(explanation, tmp_path):
    with pytest.raises(InputError, match="one of pullback, signed, seismic, heatmap, overl"):
        explanation.save(tmp_path / "a.png", "cubist")


@pytest.mark.parametrize("name", ["a", "a.txt", "a.onnx", ".png"])
def test_an_unknown_suffix(explanation, tmp_path, name):
    with pytest.raises(InputError, match="no suffix of a picture's format"):
        explanation.save(tmp_path / name)


def test_a_missing_folder(explanation, tmp_path):
    with pytest.raises(InputError, match=r"there is no folder '.*missing'"):
        explanation.save(tmp_path / "missing" / "a.png")


def test_a_folder_that_is_a_file(explanation, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="there is no folder"):
        explanation.save(tmp_path / "file" / "a.png")


def test_a_path_that_is_a_folder(explanation, tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(InputError, match="cannot write"):
        explanation.save(tmp_path / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_picture_too_large_for_its_format(tmp_path):
    wide = of_pullback(np.zeros((1, 1, 1, 20_000), np.float32))
    with pytest.raises(InputError, match="as WEBP"):
        wide.save(tmp_path / "a.webp")
    assert not list(tmp_path.iterdir())
