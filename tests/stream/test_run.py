"""A slow explainer drops frames, a fast one does not; both keep to the video's clock."""

from __future__ import annotations

import time
from contextlib import suppress

import numpy as np
import pytest

import onnxplain
from onnxplain.errors import InputError
from onnxplain.stream import Video, explain_stream
from onnxplain.stream.recording import Recording

from .conftest import Quick, Slow, times, write_video

FRAMES = 15


class Kept:
    """Remembers when which frame was shown, and wants no more than `most`."""

    def __init__(self, most: int = 1000) -> None:
        self.most = most
        self.frames, self.images, self.late = [], [], []

    def show(self, image, frame):
        self.frames.append(frame)
        self.images.append(image)
        self.late.append(time.monotonic() - frame.due)
        return len(self.frames) < self.most


def test_a_fast_explainer_drops_nothing(colours):
    kept = Kept()
    with Video(str(colours)) as video:
        report = explain_stream(video, Quick(), [kept])
    assert (report.read, report.explained, report.dropped) == (FRAMES, FRAMES, 0)
    assert [frame.pts * frame.time_base for frame in kept.frames] == times(colours)


def test_a_slow_explainer_drops_frames_and_stays_in_step(colours):
    kept = Kept()
    with Video(str(colours)) as video:
        report = explain_stream(video, Slow(), [kept])
    assert report.read == FRAMES
    assert report.dropped > 0
    assert report.explained + report.dropped == report.read
    assert len(kept.frames) == report.explained
    # Explaining all, one after another, would end 3 s late: a frame waits for one other at most.
    assert max(kept.late) < 2.5 * Slow.seconds + 1
    assert len(report.latencies) == report.explained
    assert min(report.latencies) >= Slow.seconds


def test_a_recording_has_the_times_of_the_frames_that_it_explains(colours, tmp_path):
    for explainer, name in ((Quick(), "all.mp4"), (Slow(), "some.mkv")):
        path, kept = tmp_path / name, Kept()
        with Video(str(colours)) as video, Recording(path, video) as recording:
            report = explain_stream(video, explainer, [kept, recording])
        expected = [frame.seconds for frame in kept.frames]
        assert list(map(float, times(path))) == pytest.approx(expected, abs=1e-3)
        assert len(times(path)) == report.explained


def test_the_explanation_is_of_the_frame_that_it_is_shown_with(colours):
    named = []

    class Naming(Slow):
        def __call__(self, images, targets, temperature):
            explanation = super().__call__(images, targets, temperature)
            named.append(explanation.names[0])
            return explanation

    kept = Kept()
    with Video(str(colours)) as video:
        explain_stream(video, Naming(), [kept])
    colour = ("red", "green", "blue")
    shown = [colour[int(2 * frame.seconds + 1e-6)] for frame in kept.frames]
    assert named[1:] == shown  # the first warms up
    assert len(set(shown)) == 3


def test_a_sink_that_has_had_enough_ends_it(colours):
    kept = Kept(most=3)
    with Video(str(colours)) as video:
        report = explain_stream(video, Quick(), [kept])
    assert report.explained == 3
    assert report.read - report.explained == report.dropped


def test_what_was_recorded_before_an_interruption_is_kept(colours, tmp_path):
    path, kept = tmp_path / "some.mp4", Kept()

    class Interrupted(Kept):
        def show(self, image, frame):
            if len(kept.frames) == 4:
                raise KeyboardInterrupt
            return True

    with (
        suppress(KeyboardInterrupt),
        Video(str(colours)) as video,
        Recording(path, video) as recording,
    ):
        explain_stream(video, Quick(), [kept, recording, Interrupted()])
    assert len(times(path)) == 4


def test_a_recording_needs_a_videos_suffix(colours, tmp_path):
    with (
        Video(str(colours)) as video,
        pytest.raises(InputError, match=r"give it one, such as \.mp4"),
        Recording(tmp_path / "a.txt", video),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_film_of_photographs_is_explained(lite0, photographs, tmp_path):
    """Whatever is dropped on a busy machine, each photograph is seen and named."""
    film = write_video(tmp_path / "film.mp4", list(photographs.values()), each=10)
    explainer, kept = onnxplain.load(lite0, "cpu"), Kept()
    named = []

    class Naming:
        metadata, multi_target, check = explainer.metadata, False, explainer.check

        def __call__(self, *args):
            explanation = explainer(*args)
            named.append(explanation.names[0])
            return explanation

    with Video(str(film)) as video:
        report = explain_stream(video, Naming(), [kept])
    assert report.read == 30 == report.explained + report.dropped
    at = np.array([frame.seconds for frame in kept.frames])
    names = np.array(named[1:])
    assert {"espresso"} == set(names[(at >= 1) & (at < 2)])
    assert set(names[at < 1]) <= {"Egyptian cat", "tabby", "tiger cat", "lynx"}
    assert set(names[at >= 2]) & {"missile", "obelisk", "projectile", "radio"}
    assert all(image.size == (320, 240) for image in kept.images)
