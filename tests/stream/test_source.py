"""Frames, each when it is due."""

from __future__ import annotations

import math
import os
import shutil
import socket
import threading
import time
from fractions import Fraction
from itertools import pairwise
from types import SimpleNamespace

import av
import numpy as np
import pytest
from PIL import Image

from onnxplain.errors import InputError
from onnxplain.stream import Video

from .conftest import RATE, times


def test_a_files_frames_come_by_its_clock(colours, monkeypatch):
    monkeypatch.setattr("onnxplain.stream.source._MOST_LATE", math.inf)  # on a busy machine
    with Video(str(colours)) as video:
        frames = []
        for frame in video.frames():
            assert time.monotonic() >= frame.due
            frames.append(frame)
    assert [frame.pts * frame.time_base for frame in frames] == times(colours)
    for before, after in pairwise(frames):
        assert after.due - before.due == pytest.approx(1 / RATE)


def test_decoding_that_takes_longer_than_showing_does_not_fall_ever_further_behind(
    colours, monkeypatch
):
    clock = SimpleNamespace(now=0.0)

    def monotonic() -> float:
        clock.now += 0.25  # asked more than once per frame: of a tenth of a second
        return clock.now

    monkeypatch.setattr("onnxplain.stream.source.time", SimpleNamespace(monotonic=monotonic))
    with Video(str(colours)) as video:
        late = [clock.now - frame.due for frame in video.frames()]
    assert len(late) == len(times(colours))
    assert 0.5 < max(late) < 2


def test_a_frame_is_shown_as_it_was_filmed(colours):
    with Video(str(colours)) as video:
        pixels = np.asarray(next(iter(video.frames())).image())
    assert pixels.shape == (240, 320, 3)
    assert np.abs(pixels.reshape(-1, 3).mean(axis=0) - (200, 0, 0)).max() < 8


def test_a_phones_upright_video_is_turned(tmp_path):
    """MP4 stores how it is to be shown in a matrix; the picture lies on its side."""
    upright = Image.new("RGB", (64, 128), "black")
    upright.paste("white", (0, 0, 64, 64))  # the upper half
    path = tmp_path / "turned.mp4"
    with av.open(str(path), "w") as file:
        track = file.add_stream("libx264", RATE)
        track.width, track.height, track.pix_fmt = 128, 64, "yuv420p"
        lying = av.VideoFrame.from_image(upright.rotate(90, expand=True))
        file.mux([*track.encode(lying), *track.encode()])
    data = bytearray(path.read_bytes())
    unity = np.array([0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000], ">i4").tobytes()
    turned = np.array([0, 0x10000, 0, -0x10000, 0, 0, 64 << 16, 0, 0x40000000], ">i4").tobytes()
    at = data.index(unity, data.index(b"tkhd"))
    data[at : at + len(unity)] = turned
    path.write_bytes(data)
    with Video(str(path)) as video:
        image = next(iter(video.frames())).image()
    assert image.size == upright.size
    assert np.abs(np.asarray(image).astype(int) - np.asarray(upright)).mean() < 8


def test_damaged_packets_are_passed_over(colours, tmp_path):
    data = bytearray(colours.read_bytes())
    with av.open(str(colours)) as file:
        at = [packet.pos for packet in file.demux(video=0) if packet.size][6]
    data[at : at + 4] = b"\xff" * 4  # the length of what follows
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    with Video(str(path)) as video:
        assert 6 <= len(list(video.frames())) < len(times(colours))
        assert video.damaged == 1


def test_what_is_sent_live_is_read_as_it_comes():
    """A camera that sends MPEG-TS over UDP, without asking whether anybody is in time."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        url = f"udp://127.0.0.1:{free.getsockname()[1]}"
    enough = threading.Event()

    def send() -> None:
        with av.open(f"{url}?pkt_size=1316", "w", format="mpegts") as file:
            track = file.add_stream("mpeg2video", 25)
            track.width, track.height, track.pix_fmt, track.gop_size = 64, 64, "yuv420p", 5
            for number in range(1000):
                frame = av.VideoFrame.from_image(Image.new("RGB", (64, 64), "green"))
                frame.pts, frame.time_base = number, Fraction(1, 25)
                file.mux(track.encode(frame))
                if enough.wait(0.02):
                    return

    sender = threading.Thread(target=send)
    sender.start()
    try:
        with Video(url) as video:
            assert video.live
            frames = video.frames()
            received = [next(frames) for _ in range(10)]
    finally:
        enough.set()
        sender.join()
    assert all(after.due >= before.due for before, after in pairwise(received))
    assert all(after.seconds > before.seconds for before, after in pairwise(received))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("missing.mp4", "no such file: 'missing.mp4'"),
        (
            "rtsp://127.0.0.1:1/camera",
            "cannot open 'rtsp://127.0.0.1:1/camera': Connection refused",
        ),
        ("97", "there is no camera /dev/video97"),
    ],
)
def test_a_source_that_is_not_there(source, said):
    with pytest.raises(InputError, match=said):
        Video(source)


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{video}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile {video}\n",
    ],
)
def test_a_playlist_opens_no_other_file(text, colours, tmp_path):
    shutil.copy(colours, tmp_path / "video.mp4")
    (tmp_path / "movie.mp4").write_text(text.format(video="video.mp4"))
    for source in (tmp_path / "movie.mp4", (tmp_path / "movie.mp4").as_uri()):
        with pytest.raises(InputError, match="cannot open"):
            Video(str(source))


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "video.mp4")
    with pytest.raises(InputError, match="it is a pipe, not a file"):
        Video(str(tmp_path / "video.mp4"))


def test_a_files_address_is_the_file(colours):
    with Video(colours.as_uri()) as video:
        assert video.rate == RATE
        assert not video.live


def test_a_file_without_video(tmp_path):
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(InputError, match="cannot open"):
        Video(str(tmp_path / "text.mp4"))
    with av.open(str(tmp_path / "sound.wav"), "w") as file:
        track = file.add_stream("pcm_s16le", 8000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        silence.sample_rate = 8000
        file.mux([*track.encode(silence), *track.encode()])
    with pytest.raises(InputError, match="has no video"):
        Video(str(tmp_path / "sound.wav"))
