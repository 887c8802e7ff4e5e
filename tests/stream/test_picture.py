"""The heat lies where the network saw it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from onnxplain.contract.explain import Preprocessing
from onnxplain.contract.picture import PictureOptions
from onnxplain.errors import InputError
from onnxplain.runtime import Explanation
from onnxplain.stream.picture import check_look, explained_frame, write_line


def preprocessing(height: int = 20, width: int = 20, resize: int = 25) -> Preprocessing:
    return Preprocessing(height, width, resize, (0.0,) * 3, (1.0,) * 3)


def test_the_heat_lies_where_the_pullback_is_strong():
    pre = preprocessing()
    pullback = np.zeros((1, 3, 20, 20), np.float32)
    pullback[0, :, 2:6, 12:16] = 1
    zeros = np.zeros((1, 20, 20, 3), np.uint8)
    explanation = Explanation(np.zeros((1, 2), np.float32), pullback, np.array([0]), zeros, ())
    grey = Image.new("RGB", (320, 240), (100, 100, 100))
    page = np.asarray(explained_frame(grey, explanation, pre)).astype(int)
    # Resized to 33 × 25, of which 20 × 20 from (6, 2) on are seen.
    scale, left, top = 240 / 25, 6 * 320 / 33, 2 * 240 / 25
    assert page.shape == (240, 320, 3)
    hot = np.argwhere(page.max(axis=-1) > 200).mean(axis=0)
    assert hot == pytest.approx([top + 4 * scale, left + 14 * scale], abs=scale)
    assert (page[:, : int(left)] == 80).all()  # what the network did not see


@pytest.mark.parametrize(
    "look", [{"style": "grid"}, {"size": "network"}, {"style": "overlay", "transparent": True}]
)
def test_a_frame_is_one_picture(look):
    with pytest.raises(InputError, match="one opaque picture as large as the frame"):
        check_look(PictureOptions(**look))


def test_the_line_is_below_the_picture_and_fits():
    image = Image.new("RGB", (320, 240), "white")
    write_line(image, "Egyptian cat 56%   41 ms")
    pixels = np.asarray(image)
    assert (pixels[:200] == 255).all()
    assert (pixels[-5:] < 100).any()
