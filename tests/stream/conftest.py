"""A video made of photographs, and explainers that need no network."""

from __future__ import annotations

import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from onnxplain.contract import Metadata, Preprocessing
from onnxplain.runtime import Explanation

RATE, SIZE = 10, (320, 240)


def write_video(path: Path, images: Sequence[np.ndarray], each: int, rate: int = RATE) -> Path:
    """Every image for `each` frames, cut to 4:3."""
    with av.open(str(path), "w") as file:
        track = file.add_stream("libx264", rate)
        track.width, track.height = SIZE
        track.pix_fmt = "yuv420p"
        for image in images:
            side = min(image.shape[0], image.shape[1] * 3 // 4)
            part = Image.fromarray(image[:side, : side * 4 // 3]).resize(SIZE)
            for _ in range(each):
                file.mux(track.encode(av.VideoFrame.from_image(part)))
        file.mux(track.encode())
    return path


def times(path: Path) -> list[Fraction]:
    """When each frame of a file is shown, in seconds."""
    with av.open(str(path)) as file:
        return [frame.pts * frame.time_base for frame in file.decode(video=0)]


class Quick:
    """Says at once whether a picture is rather red (0), green (1) or blue (2)."""

    multi_target = False
    seconds = 0.0

    def __init__(self) -> None:
        pre = Preprocessing(height=8, width=8, resize=8, mean=(0.5,) * 3, std=(0.5,) * 3)
        self.metadata = Metadata("0", "gradient", "test", pre)

    def check(self, targets: Any, temperature: float | None) -> None:
        pass

    def __call__(self, images: Any, targets: Any, temperature: float | None) -> Explanation:
        time.sleep(self.seconds)
        small = np.stack([np.asarray(image.resize((8, 8))) for image in images])
        logits = small.mean(axis=(1, 2)).astype(np.float32)
        pullback = np.moveaxis(small, -1, 1).astype(np.float32)
        return Explanation(logits, pullback, logits.argmax(axis=1), small, ("red", "green", "blue"))


class Slow(Quick):
    """Takes three frames' time for one."""

    seconds = 3 / RATE


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second and a half: five frames red, five green, five blue."""
    images = [np.zeros((240, 320, 3), np.uint8) for _ in range(3)]
    for channel, image in enumerate(images):
        image[..., channel] = 200
    return write_video(tmp_path_factory.mktemp("video") / "colours.mp4", images, 5)
