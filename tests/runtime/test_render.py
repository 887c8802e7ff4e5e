"""Pictures: what their colours mean, and grids that stay in order."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageColor

from onnxplain.runtime.pictures.render import (
    Cell,
    grid,
    heatmap_image,
    overlay,
    seismic_image,
    signed_image,
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
    np.testing.assert_allclose(np.asarray(seismic_image(values)).astype(int), expected, atol=4)
    assert np.asarray(seismic_image(np.zeros((3, 2, 2)))).min() == 255
