"""Pictures: what their colours mean, and grids that stay in order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageColor

from onnxplain.contract.colours import palette
from onnxplain.contract.picture import SIGNS, STRENGTHS, PictureOptions, rank_from_top, thinning
from onnxplain.errors import InputError
from onnxplain.runtime.pictures.render import (
    Cell,
    grid,
    heatmap_image,
    map_white_point,
    overlay,
    painted,
    scaled,
    seismic_colours,
    seismic_values,
    signed_image,
    smoothed,
    white_point,
)


def test_zero_is_mid_grey_and_signs_are_symmetric_about_it():
    values = np.array([[[-2.0, 0, 2]], [[0, 0, 0]], [[1, 0, -1]]])
    assert np.asarray(signed_image(values))[0].tolist() == [
        [0, 128, 191],
        [128, 128, 128],
        [255, 128, 64],
    ]


def test_outliers_do_not_dim_a_signed_image():
    values = np.ones((3, 100, 100))
    values[0, 0, 0] = 1e6
    assert np.asarray(signed_image(values)).min() == 255


def test_a_signed_image_of_zeros_is_grey():
    assert np.unique(np.asarray(signed_image(np.zeros((3, 4, 4))))).tolist() == [128]


def test_a_sparse_signed_image_is_scaled_by_its_greatest_value():
    values = np.zeros((1, 100, 100))
    values[0, 0, 0] = 1e-9
    assert np.asarray(signed_image(values))[0, 0].tolist() == [255, 255, 255]


def test_a_heatmap_rises_in_lightness():
    ramp = np.linspace(0, 1, 64)[None]
    lightness = np.asarray(heatmap_image(ramp).convert("L")).astype(int)[0]
    assert (np.diff(lightness) >= 0).all()
    assert lightness[0] < 5
    assert lightness[-1] > 230


def test_an_overlay_shows_the_photograph_where_it_is_cold():
    photograph = np.full((4, 4, 3), 200, np.uint8)
    heat = np.zeros((4, 4))
    heat[0, 0] = 1
    picture = np.asarray(overlay(photograph, heat)).astype(int)
    assert np.ptp(picture[3, 3]) == 0
    assert picture[3, 3, 0] > 120
    assert np.ptp(picture[0, 0]) > 50


def test_a_grid_keeps_rows_and_columns():
    colours = [["red", "lime"], ["blue", "cyan"]]
    rows = [[Cell(Image.new("RGB", (200, 250), name), name) for name in row] for row in colours]
    page = np.asarray(grid(rows, ["left", "right"], ["1", "2"]))

    def centre(name: str) -> list[float]:
        return np.argwhere((page == ImageColor.getrgb(name)).all(axis=-1)).mean(axis=0).tolist()

    (red, lime), (blue, cyan) = ([centre(name) for name in row] for row in colours)
    assert red[0] == lime[0] < blue[0] == cyan[0]
    assert red[1] == blue[1] < lime[1] == cyan[1]


def test_small_pictures_are_enlarged_for_their_text():
    assert grid([[Cell(Image.new("RGB", (8, 8)), "seven\n99.0%")]]).width >= 192


def test_elongated_pictures_are_not_enlarged_without_end():
    assert grid([[Cell(Image.new("RGB", (1024, 2)), "seven")] * 3]).width < 7 * 1024


@pytest.mark.parametrize("titles", [(), ("an extremely long row title " * 9,)])
def test_long_text_does_not_widen_a_grid(titles):
    picture = Image.new("RGB", (224, 224))
    short = grid([[Cell(picture, "cat")]], ["a"], titles and ("cat",))
    long = grid([[Cell(picture, "a class name without end " * 9)]], ["b" * 99], titles)
    assert long.size == short.size


def test_seismic_colours_are_by_the_sign_of_the_channels_mean():
    """Each sign by its own greatest, as the authors of semantic pullbacks scale it."""
    matplotlib = pytest.importorskip("matplotlib")
    values = np.random.default_rng(0).standard_normal((3, 16, 16))
    values[:, 0, 0] = 9.0
    mean = values.mean(axis=0)
    scaled = np.where(mean > 0, mean / mean.max(), -mean / mean.min())
    expected = matplotlib.colormaps["seismic"]((scaled + 1) / 2, bytes=True)[..., :3]
    found = seismic_colours(seismic_values(values))
    np.testing.assert_allclose(found.astype(int), expected, atol=4)
    assert seismic_colours(seismic_values(np.zeros((3, 2, 2)))).min() == 255


# By the formulas of onnxplain.contract.picture


def by_hand(
    pullback: np.ndarray,
    photograph: np.ndarray,
    style: str,
    percentile: float,
    sigma: float,
    signed: bool = False,
) -> np.ndarray:
    """The colours of a pullback [C,H,W] by SciPy, sorting and interpolation, unrounded."""
    from scipy.ndimage import gaussian_filter

    signed = signed or style == "signed"
    values = pullback.sum(0) if signed else np.abs(pullback).sum(0)
    padded = np.pad(values, 40)
    weight = gaussian_filter(np.pad(np.ones_like(values), 40), sigma, truncate=8)
    values = (gaussian_filter(padded, sigma, truncate=8) / np.maximum(weight, 1e-9))[40:-40, 40:-40]
    white = np.percentile(np.abs(values), percentile, method="higher")
    v = (values / white).clip(-1 if signed else 0, 1)
    cover = np.abs(v)[..., None] ** 0.75 * 0.85
    anchors = SIGNS["coolwarm"] if signed else STRENGTHS["inferno"]
    at = np.linspace(-1 if signed else 0, 1, len(anchors))
    colours = np.stack([np.interp(v, at, channel) for channel in np.array(anchors).T], axis=-1)
    grey = (photograph @ [0.299, 0.587, 0.114])[..., None]
    return (1 - cover) * 0.8 * grey + cover * colours if style == "overlay" else colours


@pytest.mark.parametrize(
    ("style", "options", "percentile", "sigma"),
    [
        ("heatmap", {}, 99, 0.8),
        ("overlay", {}, 99, 0.8),
        ("overlay", {"signed": True}, 99.5, 0.8),
        ("signed", {"smoothing": 5, "percentile": 90}, 90, 2.0),
    ],
)
def test_a_picture_is_as_the_formula_says(style, options, percentile, sigma):
    pytest.importorskip("scipy")
    rng = np.random.default_rng(1)
    pullback, photograph = rng.normal(size=(3, 40, 48)), rng.integers(0, 256, (40, 48, 3), np.uint8)
    look = PictureOptions(style=style, **options)
    drawn = np.asarray(painted(scaled(pullback, look)[0], look, photograph)).astype(float)
    signed = bool(options.get("signed"))
    expected = by_hand(pullback, photograph, style, percentile, sigma, signed)
    np.testing.assert_allclose(drawn, expected, atol=1.3)


@pytest.mark.parametrize("shape", [(40, 48), (1, 700), (300, 200), (2, 3, 150, 90)])
@pytest.mark.parametrize("percent", [0.3, 2, 50])
def test_smoothing_reaches_four_standard_deviations(shape, percent):
    """Against SciPy; beyond the borders is nothing, and what is left of the weights counts."""
    ndimage = pytest.importorskip("scipy.ndimage")
    values = np.random.default_rng(1).normal(size=shape)
    look = PictureOptions(style="heatmap", smoothing=percent)
    sigma = percent / 100 * min(shape[-2:])
    expected, weight = (
        ndimage.gaussian_filter(
            each, sigma, mode="constant", radius=int(np.ceil(4 * sigma)), axes=(-2, -1)
        )
        for each in (np.abs(values), np.ones(shape))
    )
    found = smoothed(values[..., None, :, :], look)
    np.testing.assert_allclose(found, expected / weight, rtol=1e-10)


def test_a_dot_is_smoothed_on_nothing_but_what_is_near():
    """So that a percentile of a sparse map is 0, and its greatest value is full colour instead."""
    pullback = np.zeros((1, 200, 200))
    pullback[0, 20, 20] = 1
    look = PictureOptions(style="heatmap", percentile=90)
    values, white = scaled(pullback, look)
    assert (values > 0).sum() == 33**2
    assert white == smoothed(pullback, look).max()


@pytest.mark.parametrize("name", [*STRENGTHS, *SIGNS])
def test_colour_maps_are_matplotlibs(name):
    matplotlib = pytest.importorskip("matplotlib")
    known = {**STRENGTHS, **SIGNS}[name]
    of_it = matplotlib.colormaps["gray" if name == "grey" else name]
    expected = 255 * of_it(np.linspace(0, 1, len(known)))[:, :3]
    np.testing.assert_allclose(np.array(known), expected, atol=3)


@pytest.mark.parametrize("name", STRENGTHS)
def test_strengths_rise_in_lightness(name):
    look = PictureOptions(style="heatmap", colours=name)
    lightness = palette(look) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) >= -0.05).all()


def test_zero_has_the_middle_colour_of_a_signed_map():
    look = PictureOptions(style="signed")
    drawn = np.asarray(painted(np.array([[-1.0, 0, 1]]), look))[0].astype(int)
    blue, middle, red = drawn
    assert np.ptp(middle) <= 1
    assert blue[2] > blue[0] + 100
    assert red[0] > red[2] + 100


@given(
    st.integers(1, 900), st.integers(1, 900), st.sampled_from([0, 30, 99, 99.5, 100]), st.booleans()
)
def test_a_white_point_needs_no_more_than_tensorrt_sorts(height, width, percentile, colour):
    step, rank = thinning(height, width, percentile, 3 if colour else 1)
    count = (3 if colour else 1) * -(-height // step) * -(-width // step)
    assert 1 <= rank <= min(3840, count)
    assert step == 1 or thinning(height, width, 100)[0] == 1


@pytest.mark.parametrize(
    ("count", "percentile", "rank"), [(41001, 99.9, 42), (1001, 99.5, 6), (7, 0, 7), (7, 100, 1)]
)
def test_a_rank_is_counted_exactly(count: int, percentile: float, rank: int) -> None:
    """1 + ⌊(n - 1) (1 - p)⌋: of 41,001 numbers 0.1 % of 41,000 are 41, and no rounding below."""
    assert rank_from_top(count, percentile) == rank


def test_a_white_point_is_the_higher_order_statistic():
    values = np.random.default_rng(0).exponential(size=(30, 70))
    for percentile in (0, 12.5, 50, 99, 99.5, 100):
        expected = np.percentile(values, percentile, method="higher")
        assert white_point(values, percentile) == map_white_point(values, percentile) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"style": "cubist"}, "style is one of"),
        ({"style": "heatmap", "colours": "coolwarm"}, "shows strengths, which coolwarm does not"),
        ({"style": "heatmap", "colours": "grey", "signed": True}, "has signs, which grey does not"),
        ({"style": "pullback", "colours": "inferno"}, "pullback has its own colours"),
        ({"style": "seismic", "signed": True}, "has its signs already"),
        ({"style": "heatmap", "transparent": True}, "transparent is of overlay"),
        ({"style": "heatmap", "alpha": 0.5}, "alpha is of overlay, grid; for heatmap leave it out"),
        ({"style": "pullback", "smoothing": 3.0}, "smoothing is of heatmap, overlay, signed, grid"),
        ({"style": "seismic", "percentile": 90.0}, "percentile is of .*; for seismic leave it out"),
        ({"style": "seismic", "smoothing": 3.0}, "smoothing is of"),
        ({"style": "pullback", "colour_bar": True}, "colour_bar is of"),
        ({"style": "overlay", "alpha": 1.5}, "alpha must be at most 1"),
        ({"style": "overlay", "percentile": -1}, "percentile must be at least 0"),
        ({"style": "overlay", "size": "huge"}, "size is one of photograph, network"),
        ({"style": "overlay", "smoothing": "much"}, "smoothing must be a number"),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(InputError, match=message):
        PictureOptions(**options).check()


def test_a_transparent_overlay_is_laid_on_a_grey_photograph():
    """As the opaque one, but for the rounding of what it covers."""
    rng = np.random.default_rng(0)
    heat, pixels = rng.random((20, 30)), rng.integers(0, 256, (20, 30, 3), np.uint8)
    look = PictureOptions(style="overlay", transparent=True)
    layer = painted(heat, look, pixels)
    assert layer.mode == "RGBA"
    grey = 0.8 * (pixels @ [0.299, 0.587, 0.114])
    below = Image.fromarray(np.rint(grey).astype(np.uint8)).convert("RGBA")
    found = np.asarray(Image.alpha_composite(below, layer)).astype(int)[..., :3]
    np.testing.assert_allclose(found, np.asarray(overlay(pixels, heat)).astype(int), atol=2)


def test_without_smoothing_pixels_stay_apart():
    pullback = np.zeros((1, 9, 9))
    pullback[0, 4, 4] = 1
    values, white = scaled(pullback, PictureOptions(style="heatmap", smoothing=0))
    assert (values > 0).sum() == white == 1


def test_what_is_not_finite_counts_as_nothing():
    pullback = np.ones((3, 16, 16))
    pullback[0, 2, 2], pullback[1, 3, 3] = np.nan, np.inf
    for style in ("pullback", "signed", "heatmap", "overlay"):
        values, white = scaled(pullback, PictureOptions(style=style))
        assert np.isfinite(values).all()
        assert np.isfinite(white)
