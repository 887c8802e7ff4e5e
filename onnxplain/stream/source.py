"""Frames of a video file, a camera or a network stream, each when it is due."""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import av
import av.error
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray
from PIL import Image

from onnxplain.contract.pixels import BGR, BGR_PLANAR, GRAY, NV12, RGB, RGB_PLANAR, Pixels
from onnxplain.errors import InputError
from onnxplain.reading import opened, unreadable
from onnxplain.runtime.inputs.pixels import frame

_LIVE = ("rtsp", "rtsps", "rtmp", "rtmps", "rtp", "udp", "srt")
_TIMEOUT = 10.0  # seconds to connect, and for the next packet
_MOST_LATE = 1.0  # seconds
_PACKED = {
    **{RGB: "rgb24", RGB_PLANAR: "rgb24", BGR: "bgr24", BGR_PLANAR: "bgr24"},
    **{GRAY: "gray", NV12: "nv12"},
}
"""FFmpeg's names of how pixels lie."""

_CAMERAS = {"Linux": "v4l2", "Darwin": "avfoundation", "Windows": "dshow"}


@dataclass(frozen=True)
class Frame:
    """A decoded frame.

    Attributes:
        pts, time_base: when it is shown: `pts * time_base` seconds on the video's clock.
        due: when that is by `time.monotonic`; for a live source, when the frame came.
    """

    picture: av.VideoFrame
    pts: int
    time_base: Fraction
    due: float

    @property
    def seconds(self) -> float:
        """When it is shown, on the video's clock."""
        return float(self.pts * self.time_base)

    def image(self) -> Image.Image:
        """The frame as it should be shown: RGB, upright."""
        image = Image.fromarray(self.picture.to_ndarray(format="rgb24"))
        turn = self.picture.rotation
        return image.rotate(turn, expand=True) if turn else image

    def pixels(self, wanted: Pixels) -> NDArray[np.uint8]:
        """The same as a graph takes it that takes photographs, converted once at most.

        Of what lies so already, a view; of NV12, an odd last row and column are left out.
        """
        even = self.picture.width % 2 == self.picture.height % 2 == 0
        if self.picture.rotation or (wanted.format == NV12 and not even):
            return frame(self.image(), wanted)
        picture = self.picture.reformat(
            format=_PACKED[wanted.format],
            dst_colorspace=Colorspace.ITU601,  # what a graph takes NV12 for, and this range
            dst_color_range=ColorRange.MPEG if wanted.format == NV12 else None,
        )
        packed: NDArray[Any] = picture.to_ndarray()
        if wanted.axes == (2, 3):
            return np.ascontiguousarray(packed.transpose(2, 0, 1))
        return packed


class Video:
    """The first video track of a source.

    A file is read at the pace of its own clock, or as fast as it can be decoded if that is slower;
    a live source is read as it comes.

    Args:
        source: a file; a camera, by number ("0") or device ("/dev/video0"); or a URL, such as
            rtsp://.

    Attributes:
        live: whether it runs on even if nobody reads it.
        time_base: the unit of the frames' `pts`, in seconds.
        rate: the frames per second that the source declares; None if it does not.
        damaged: how many packets could not be decoded, and were skipped.

    Raises:
        InputError: it cannot be opened, or has no video.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        address, kind, options, self.live = _address(source)
        with ExitStack() as held:
            try:
                file = address if isinstance(address, str) else held.enter_context(opened(address))
                self._container = av.open(file, "r", format=kind, options=options, timeout=_TIMEOUT)
                held.callback(self._container.close)
            except (av.error.FFmpegError, OSError, ValueError) as error:
                raise InputError(f"cannot open '{source}': {reason(error)}") from error
            if not self._container.streams.video:
                raise InputError(f"'{source}' has no video")
            self._held = held.pop_all()
        self._track = self._container.streams.video[0]
        # Decoding frames in parallel would hold several back.
        self._track.thread_type = "SLICE" if self.live else "AUTO"
        self.time_base = self._track.time_base or Fraction(1, 90_000)
        self.rate = float(self._track.average_rate) if self._track.average_rate else None
        self.damaged = 0
        self._stopped = threading.Event()

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *error: object) -> None:
        self._held.close()

    def stop(self) -> None:
        """Make `frames` end soon; may be called from another thread."""
        self._stopped.set()

    def frames(self) -> Iterator[Frame]:
        """The frames in the order in which they are shown, none of them before it is due.

        Raises:
            InputError: the source broke off.
        """
        clock = _Clock()
        for picture, pts in self._decoded():
            if self.live:
                due = time.monotonic()
            else:
                due = clock.due(float(pts * self.time_base))
                self._stopped.wait(due - time.monotonic())
            if self._stopped.is_set():
                return
            yield Frame(picture, pts, self.time_base, due)

    def _decoded(self) -> Iterator[tuple[av.VideoFrame, int]]:
        following = 0
        step = round(1 / (self.time_base * Fraction(self.rate or 25)))
        try:
            for packet in self._container.demux(self._track):
                try:
                    pictures = packet.decode()
                except av.error.InvalidDataError:
                    self.damaged += 1
                    continue
                for picture in pictures:
                    pts = following if picture.pts is None else picture.pts
                    following = pts + step
                    yield picture, pts
        except (av.error.FFmpegError, OSError) as error:
            raise InputError(f"'{self.source}' broke off: {reason(error)}") from error


class _Clock:
    """When the video's times are by `time.monotonic`, counted from the first frame.

    If frames come later than they are due because decoding takes longer than showing them, the
    video's clock is put back; otherwise they would come later and later.
    """

    def __init__(self) -> None:
        self._start: float | None = None
        self._before = 0.0

    def due(self, seconds: float) -> float:
        now, start = time.monotonic(), self._start
        anew = seconds < self._before
        if start is None or anew or now - (start + seconds) > _MOST_LATE:
            start = now - seconds
        self._start, self._before = start, seconds
        return start + seconds


def _address(source: str) -> tuple[str | Path, str | None, dict[str, str], bool]:
    """What FFmpeg should open (address or file, format, options), and whether it is live."""
    scheme = source.partition("://")[0].lower() if "://" in source else ""
    if scheme == "file":
        source = url2pathname(urlsplit(source).path)
    elif scheme:
        quick = {"fflags": "nobuffer", "flags": "low_delay"}
        if scheme.startswith("rtsp"):
            quick["rtsp_transport"] = "tcp"  # over UDP lost packets become grey frames
        return source, None, quick if scheme in _LIVE else {}, scheme in _LIVE
    elif source.isdigit() or source.startswith("/dev/video"):
        kind = _CAMERAS.get(platform.system())
        if kind is None:
            raise InputError(
                f"cameras on {platform.system()} are not supported; give a file or a URL"
            )
        device = source
        if source.isdigit() and kind == "v4l2":
            device = f"/dev/video{source}"
            if not Path(device).exists():
                raise InputError(f"there is no camera {device}")
        return device, kind, {}, True
    if (problem := unreadable(source)) is not None:
        raise InputError(problem)
    return Path(source), None, _ALONE, False


_ALONE = {"protocol_whitelist": "none"}
"""For a file that is read through this process: playlists open nothing besides, no other file and
no address."""


def reason(error: Exception) -> str:
    """What FFmpeg or the system says, without error numbers and addresses."""
    return getattr(error, "strerror", None) or str(error)
