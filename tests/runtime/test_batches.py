"""What the network is fed: torchvision's preprocessing, and arrays taken as they are."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from onnxplain.contract.explain import Preprocessing
from onnxplain.errors import InputError
from onnxplain.runtime.inputs.batches import as_batch, preprocess, to_photographs


@pytest.fixture
def photograph() -> Image.Image:
    pixels = np.random.default_rng(1).integers(0, 256, (9, 13, 3), np.uint8)
    return Image.fromarray(pixels).resize((130, 90), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("turn", [False, True])
@pytest.mark.parametrize(
    ("resize", "height", "width"),
    [(64, 56, 56), (65, 56, 56), (33, 32, 21), (100, 96, 90), (30, 41, 40), (20, 24, 64)],
)
def test_preprocessing_is_torchvisions(photograph, interpolation, turn, resize, height, width):
    transforms = pytest.importorskip("torchvision.transforms")
    if turn:
        photograph = photograph.rotate(90, expand=True)
    pre = Preprocessing(height, width, resize, interpolation=interpolation)
    theirs = transforms.Compose(
        [
            transforms.Resize(resize, transforms.InterpolationMode[interpolation.upper()]),
            transforms.CenterCrop((height, width)),
            transforms.ToTensor(),
            transforms.Normalize(pre.mean, pre.std),
        ]
    )
    ours = preprocess(photograph, pre)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs(photograph).numpy(), atol=1e-6)


@pytest.mark.parametrize("channels", [2, 4])
def test_other_channels_than_a_photographs(channels: int) -> None:
    pre = Preprocessing(8, 8, 8, (0.5,) * channels, (0.25,) * channels)
    with pytest.raises(InputError, match=f"{channels} channels, which no photograph has"):
        as_batch(np.zeros((9, 11, 3), np.uint8), pre)
    batch, shown = as_batch(np.zeros((1, channels, 8, 8), np.float32), pre)
    assert batch.shape == (1, channels, 8, 8)
    assert shown.shape == (1, 8, 8, 3)


def test_channels_come_last_where_the_layout_says_so(photograph, tiny):
    np.testing.assert_array_equal(
        preprocess(photograph, tiny.preprocessing(layout="NHWC")),
        preprocess(photograph, tiny.preprocessing()).transpose(1, 2, 0),
    )


def test_a_network_of_one_channel_gets_the_luminance(tiny):
    pre = tiny.preprocessing(channels=1)
    green = preprocess(Image.new("RGB", (8, 8), (0, 255, 0)), pre)
    assert green.shape == (1, tiny.height, tiny.width)
    np.testing.assert_allclose(green, (150 / 255 - pre.mean[0]) / pre.std[0], rtol=1e-6)


def test_an_image_so_elongated_that_resizing_it_would_be_a_bomb(tiny, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    with pytest.raises(InputError, match="too elongated"):
        preprocess(Image.new("RGB", (1000, 1)), tiny.preprocessing())


def test_kinds_of_pictures_can_be_mixed(photograph, tmp_path, tiny, x):
    photograph.save(tmp_path / "a.png")
    pixels = np.asarray(photograph)
    pictures = [str(tmp_path / "a.png"), tmp_path / "a.png", photograph, pixels, pixels[None], x[0]]
    batch, photographs = as_batch(pictures, tiny.preprocessing())
    assert batch.dtype == np.float32
    assert photographs.dtype == np.uint8
    assert photographs.shape == (6, tiny.height, tiny.width, 3)
    for i in range(1, 5):
        np.testing.assert_array_equal(batch[i], batch[0])
        np.testing.assert_array_equal(photographs[i], photographs[0])
    np.testing.assert_array_equal(batch[5], x[0])


def test_eight_bit_arrays_may_be_grey_or_transparent(photograph, tiny):
    grey = np.asarray(photograph.convert("L"))
    pre = tiny.preprocessing()
    expected, _ = as_batch(photograph.convert("L"), pre)
    for array in (grey, grey[..., None], grey[None, ..., None]):
        np.testing.assert_array_equal(as_batch(array, pre)[0], expected)
    clear = np.dstack([np.asarray(photograph), np.zeros_like(grey)])
    assert as_batch(clear, pre)[1].min() == 255


def test_floats_are_taken_as_they_are_in_the_graphs_dtype(tiny, x):
    exact = x.astype(np.float64) + 1e-12
    batch, _ = as_batch(exact, tiny.preprocessing(), np.float64)
    np.testing.assert_array_equal(batch, exact)
    assert as_batch(exact, tiny.preprocessing())[0].dtype == np.float32


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_photographs_of_floats_are_unnormalised(photograph, tiny, layout, channels):
    pre = tiny.preprocessing(channels, layout)
    source = photograph.convert("L") if channels == 1 else photograph
    batch, photographs = as_batch(source, pre)
    np.testing.assert_array_equal(as_batch(batch, pre)[1], photographs)


def test_the_photographs_of_floats_are_clipped(tiny, x):
    photographs = to_photographs(1e30 * np.abs(x), tiny.preprocessing())
    assert photographs.min() == photographs.max() == 255


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(tiny, x, value):
    x[1, 2, 3, 4] = value
    with pytest.raises(InputError, match="NaN or infinite"):
        as_batch(x, tiny.preprocessing())


def test_values_beyond_the_graphs_dtype(tiny, x):
    with pytest.raises(InputError, match="infinite"):
        as_batch(x.astype(np.float64) * 1e300, tiny.preprocessing())


@pytest.mark.parametrize("shape", [(3, 8, 6), (6, 8, 3), (1, 6, 8), (6, 8), (1, 1, 3, 6, 8)])
def test_floats_of_another_shape_are_told_the_expected_one(tiny, shape):
    with pytest.raises(InputError, match=r"\[3, 6, 8\]"):
        as_batch(np.zeros(shape, np.float32), tiny.preprocessing())


def test_floats_of_a_channel_last_graph_have_their_channels_last(tiny):
    pre = tiny.preprocessing(layout="NHWC")
    assert as_batch(np.zeros((6, 8, 3)), pre)[0].shape == (1, 6, 8, 3)
    with pytest.raises(InputError, match=r"\[6, 8, 3\]"):
        as_batch(np.zeros((3, 6, 8)), pre)


@pytest.mark.parametrize("shape", [(3, 60, 80), (60,), (2, 60, 80), (1, 1, 60, 80, 3)])
def test_eight_bit_arrays_of_another_shape(tiny, shape):
    with pytest.raises(InputError, match=r"\[H, W, C\]"):
        as_batch(np.zeros(shape, np.uint8), tiny.preprocessing())


@pytest.mark.parametrize("dtype", [np.int64, np.uint16, bool, object])
def test_arrays_of_another_dtype(tiny, dtype):
    with pytest.raises(InputError, match="uint8 pixels or normalised floats"):
        as_batch(np.zeros((6, 8, 3), dtype), tiny.preprocessing())


@pytest.mark.parametrize("thing", [5, None, {"a": 1}, b"a.png", [[1, 2]]])
def test_what_is_not_a_picture(tiny, thing):
    with pytest.raises(InputError, match="images are paths, folders"):
        as_batch(thing, tiny.preprocessing())


@pytest.mark.parametrize(
    "nothing", [[], (), np.zeros((0, 3, 6, 8)), np.zeros((0, 6, 8, 3), np.uint8)]
)
def test_no_image(tiny, nothing):
    with pytest.raises(InputError, match="no image given"):
        as_batch(nothing, tiny.preprocessing())
