"""Explained frames as a video file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import av.error
import numpy as np
from PIL import Image

from onnxplain.errors import InputError
from onnxplain.files import replacing
from onnxplain.stream.source import Frame, Video, reason

_QUALITY: dict[str, object] = {"crf": "20", "preset": "veryfast"}  # x264's


class Recording:
    """A file whose frames have the times of those they explain; dropped frames are missing.

    The suffix decides the container. The file is complete when this is exited, also by an
    exception: what was recorded until then is kept.

    Args:
        video: where the frames come from. The file has its clock; for a live source it begins with
            the first frame.

    Raises:
        InputError: the suffix is not that of a video, or the file cannot be written.
    """

    def __init__(self, path: Path, video: Video) -> None:
        self._path, self._video = path, video
        self._exits = contextlib.ExitStack()
        self._track: av.VideoStream | None = None
        self._first = 0  # of the frames' `pts`

    def __enter__(self) -> Recording:
        with contextlib.ExitStack() as stack:
            beside = stack.enter_context(replacing(self._path))
            try:
                self._file = stack.enter_context(av.open(str(beside), "w"))
                codec = self._file.default_video_codec
            except (av.error.FFmpegError, ValueError) as error:
                raise InputError(
                    f"'{self._path}' does not have the suffix of a video container that can be "
                    "written; give it one, such as .mp4 or .mkv"
                ) from error
            self._codec = codec
            self._exits = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._track is None:
            problem = error or InputError(f"'{self._video.source}' gave no frame to record")
            self._exits.__exit__(type(problem), problem, trace)
            if error is None:
                raise problem
            return
        with self._writing(), self._exits:
            self._file.mux(self._track.encode())

    def show(self, image: Image.Image, frame: Frame) -> bool:
        """Write a frame; always True.

        Raises:
            InputError: it cannot be written: the disk is full, or the source's clock ran backwards.
        """
        if self._track is None:
            self._track = self._begin(image)
            self._first = frame.pts if self._video.live else 0
        width, height = self._track.width, self._track.height
        pixels = np.asarray(image.crop((0, 0, width, height)))
        picture = av.VideoFrame.from_ndarray(pixels, "rgb24")
        picture.pts, picture.time_base = frame.pts - self._first, frame.time_base
        with self._writing():
            self._file.mux(self._track.encode(picture))
        return True

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except av.error.FFmpegError as error:
            raise InputError(f"cannot write '{self._path}': {reason(error)}") from error

    def _begin(self, image: Image.Image) -> av.VideoStream:
        rate = Fraction(self._video.rate or 25).limit_denominator(1001)
        track = self._file.add_stream(self._codec, rate)
        assert isinstance(track, av.VideoStream)
        track.width, track.height = (side - side % 2 for side in image.size)  # chroma is halved
        track.pix_fmt = "yuv420p"
        track.codec_context.time_base = self._video.time_base
        if self._codec == "h264":
            track.options = dict(_QUALITY)
        return track
