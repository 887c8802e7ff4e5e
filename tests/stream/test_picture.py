"""The heat lies where the network saw it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from onnxplain.contract.explain import Preprocessing
from onnxplain.runtime import Explanation
from onnxplain.runtime.inputs.batches import as_batch
from onnxplain.stream.picture import explained_frame, seen_part, write_line


def preprocessing(height: int = 20, width: int = 20, resize: int = 25) -> Preprocessing:
    return Preprocessing(height, width, resize, (0.0,) * 3, (1.0,) * 3)


@given(st.integers(60, 300), st.integers(60, 300))
def test_the_seen_part_is_what_preprocessing_crops(width, height):
    """Of a picture whose colour says where a pixel is."""
    pre = preprocessing()
    y, x = np.mgrid[:height, :width]
    place = np.stack([255 * x / width, 255 * y / height, 0 * x], axis=-1).astype(np.uint8)
    _, seen = as_batch(Image.fromarray(place), pre)
    left, top, right, bottom = seen_part((width, height), pre)
    pixel = 0.5 / (pre.resize * np.array([width, height]) // min(width, height))
    first, last = seen[0, 0, 0, :2] / 255, seen[0, -1, -1, :2] / 255
    assert first == pytest.approx(np.array([left / width, top / height]) + pixel, abs=0.02)
    assert last == pytest.approx(np.array([right / width, bottom / height]) - pixel, abs=0.02)


def test_the_heat_lies_where_the_pullback_is_strong():
    pre = preprocessing()
    pullback = np.zeros((1, 3, 20, 20), np.float32)
    pullback[0, :, 2:6, 12:16] = 1
    zeros = np.zeros((1, 20, 20, 3), np.uint8)
    explanation = Explanation(np.zeros((1, 2), np.float32), pullback, np.array([0]), zeros, ())
    grey = Image.new("RGB", (320, 240), (100, 100, 100))
    page = np.asarray(explained_frame(grey, explanation, pre)).astype(int)
    left, top, right, _ = seen_part(grey.size, pre)
    scale = (right - left) / 20
    hot = np.argwhere(page.max(axis=-1) > 200).mean(axis=0)
    assert hot == pytest.approx([top + 4 * scale, left + 14 * scale], abs=scale)
    assert (page[:, :left] == 80).all()  # what the network did not see


def test_the_line_is_below_the_picture_and_fits():
    image = Image.new("RGB", (320, 240), "white")
    write_line(image, "Egyptian cat 56%   41 ms")
    pixels = np.asarray(image)
    assert (pixels[:200] == 255).all()
    assert (pixels[-5:] < 100).any()
