"""Where numbers of the network's input lie in the photograph."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from onnxplain.contract.explain import Preprocessing
from onnxplain.runtime.inputs.batches import as_batch, box_in_photograph
from onnxplain.runtime.pictures.canvas import Canvas
from onnxplain.runtime.pictures.marks import outlined


def preprocessing(height: int = 20, width: int = 20, resize: int = 25) -> Preprocessing:
    return Preprocessing(height, width, resize, (0.0,) * 3, (1.0,) * 3)


def canvas(size: tuple[int, int], pre: Preprocessing, longest: int = 1024) -> Canvas:
    return Canvas.of_photograph(Image.new("RGB", size), (pre.height, pre.width), pre, longest)


@given(st.integers(192, 300), st.integers(192, 300), st.sampled_from([20, 25, 40]))
def test_what_the_network_saw_lies_where_it_was(width, height, resize):
    """Of a photograph whose colours say where a pixel is, brought to the network and back."""
    pre = preprocessing(resize=resize)
    y, x = np.mgrid[:height, :width]
    where = np.stack([255 * x / width, 255 * y / height, 0 * x], axis=-1).astype(np.uint8)
    _, seen = as_batch(Image.fromarray(where), pre)
    placed = canvas((width, height), pre).placed(seen[0].transpose(2, 0, 1))
    inside = canvas((width, height), pre).placed(np.ones((20, 20))) == 1
    pixel = 255 / resize
    inner = inside & np.roll(inside, 8, 0) & np.roll(inside, -8, 0)
    inner &= np.roll(inside, 8, 1) & np.roll(inside, -8, 1)
    assert inner.any()
    difference = placed.transpose(1, 2, 0)[inner] - where[inner]
    assert np.abs(difference).max() < pixel


def test_between_the_networks_pixels_it_is_linear():
    """As torch's interpolate with half-pixel centres."""
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(0).normal(size=(2, 20, 20)).astype(np.float32)
    placed = canvas((200, 200), preprocessing(20, 20, 20)).placed(values)
    x = torch.from_numpy(values)[None]
    expected = torch.nn.functional.interpolate(x, (200, 200), mode="bilinear")[0].numpy()
    np.testing.assert_allclose(placed, expected, atol=1e-5)


def test_beyond_it_is_nothing():
    placed = canvas((480, 240), preprocessing(resize=24)).placed(np.ones((20, 20)))
    expected = np.zeros((240, 480))
    expected[20:220, 140:340] = 1
    np.testing.assert_array_equal(placed, expected)


@pytest.mark.parametrize(
    ("size", "longest", "expected"),
    [
        ((28, 28), 1024, (196, 196)),
        ((640, 480), 1024, (640, 480)),
        ((4000, 3000), 1024, (1024, 768)),
        ((1, 9000), 1024, (1, 1024)),
        ((9000, 1), 10**9, (9000, 1)),
    ],
)
def test_small_photographs_are_enlarged_and_large_ones_reduced(size, longest, expected):
    drawn = canvas(size, preprocessing(resize=20), longest)
    assert drawn.photograph.shape[1::-1] == expected


def test_boxes_are_placed_as_in_the_photograph():
    box = np.array([[1.5, 2, 9, 12]])
    pre = preprocessing()
    found = canvas((320, 240), pre).boxes(box)
    np.testing.assert_allclose(found, box_in_photograph(box, (320, 240), pre))
    np.testing.assert_allclose(canvas((640, 480), pre, 320).boxes(box), found)


def test_what_the_network_saw_is_enlarged_by_whole_factors():
    seen = np.random.default_rng(0).integers(0, 256, (8, 6, 3), np.uint8)
    drawn = Canvas.of_network(seen)
    np.testing.assert_array_equal(drawn.photograph, seen.repeat(32, 0).repeat(32, 1))
    values = seen[..., 0].astype(np.float32)
    np.testing.assert_array_equal(drawn.placed(values), values.repeat(32, 0).repeat(32, 1))
    assert drawn.boxes(np.array([1, 2, 3, 4])).tolist() == [32, 64, 96, 128]


def test_a_region_of_a_coarser_map():
    region = np.array([[0, 0.5], [-1, 2]])
    drawn = Canvas.of_network(np.zeros((200, 192, 3), np.uint8)).inside(region, 200, 192)
    assert drawn[:100, 96:].all()
    assert drawn[100:, 96:].all()
    assert not drawn[:, :96].any()


def test_a_boxs_line_is_white_within_and_black_around():
    marked = np.asarray(outlined(Image.new("RGB", (40, 30), "red"), [np.array([5.7, 6, 20, 15])]))
    assert (marked[6, 5:21] == 255).all()
    assert (marked[6:16, 20] == 255).all()
    assert (marked[5, 4:22] == 0).all()
    assert (marked[16, 4:22] == 0).all()
    assert (marked[7:15, 6:20] == [255, 0, 0]).all()


def test_lines_of_large_pictures_are_thicker():
    marked = np.asarray(outlined(Image.new("RGB", (600, 512)), [np.array([50, 60, 200, 150])]))
    assert (marked[60:62, 50:201] == 255).all()
    assert not marked[62, 60:190].any()


@pytest.mark.parametrize("box", [[5, 5, 5, 9], [np.nan, 1, 2, 3]])
def test_what_is_no_box_is_not_drawn(box):
    assert not np.asarray(outlined(Image.new("RGB", (20, 20)), [np.array(box)])).any()


def test_a_regions_outline_lies_along_its_border():
    inside = np.zeros((9, 9), bool)
    inside[3:6, 3:7] = True
    marked = np.asarray(outlined(Image.new("RGB", (9, 9), "red"), (), inside))[..., 1:]
    expected = np.zeros((9, 9), int)  # of red, which has neither green nor blue
    expected[3:6, 3:7] = 255
    expected[4, 4:6] = 0
    np.testing.assert_array_equal(marked[..., 0], expected)
    around = np.asarray(outlined(Image.new("RGB", (9, 9), "red"), (), inside))[..., 0] == 0
    assert around[[2, 6], 3:7].all()
    assert around[3:6, [2, 7]].all()
    assert around.sum() == 14
