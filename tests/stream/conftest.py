"""A video made of photographs, and explainers that need no network."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from onnxplain.contract.explain import Metadata, Preprocessing
from onnxplain.runtime import Explanation
from onnxplain.stream import Frame, Video

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


class Stepped(Video):
    """A file whose frames come when they are let, however busy the machine is.

    Args:
        now: the clock by which they are due, at the moment when they come.
    """

    def __init__(self, path: Path, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__(str(path))
        self._now = now
        self._let, self._came, self._over = 1, 0, False
        self._changed = threading.Condition()

    def let(self, count: int) -> None:
        """Wait until that many more are there, or all."""
        with self._changed:
            self._let += count
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._over or self._came == self._let)

    def stop(self) -> None:
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def frames(self) -> Iterator[Frame]:
        try:
            for picture, pts in self._decoded():
                with self._changed:
                    self._changed.wait_for(lambda: self._over or self._came < self._let)
                    if self._over:
                        return
                yield Frame(picture, pts, self.time_base, self._now())
                with self._changed:
                    self._came += 1
                    self._changed.notify_all()
        finally:
            self.stop()


class Letting:
    """A sink in whose time so many frames come."""

    def __init__(self, video: Stepped, count: int) -> None:
        self.video, self.count = video, count

    def show(self, image: Image.Image, frame: Frame) -> bool:
        self.video.let(self.count)
        return True


class Quick:
    """Says at once whether a picture is rather red (0), green (1) or blue (2)."""

    multi_target = False

    def __init__(self) -> None:
        pre = Preprocessing(height=8, width=8, resize=8, mean=(0.5,) * 3, std=(0.5,) * 3)
        self.metadata = Metadata("0", "gradient", "test", pre)

    def check(self, targets: Any, temperature: float | None, inputs: Any) -> None:
        pass

    def __call__(self, images: Any, targets: Any, temperature: float | None) -> Explanation:
        small = np.stack([np.asarray(image.resize((8, 8))) for image in images])
        logits = small.mean(axis=(1, 2)).astype(np.float32)
        pullback = np.moveaxis(small, -1, 1).astype(np.float32)
        return Explanation(logits, pullback, logits.argmax(axis=1), small, ("red", "green", "blue"))


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second and a half: five frames red, five green, five blue."""
    images = [np.zeros((240, 320, 3), np.uint8) for _ in range(3)]
    for channel, image in enumerate(images):
        image[..., channel] = 200
    return write_video(tmp_path_factory.mktemp("video") / "colours.mp4", images, 5)
