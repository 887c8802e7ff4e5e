"""Frames that come while one is explained are dropped, but for the newest; times are kept."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import onnxplain
from onnxplain.contract.estimator import Estimated, EstimatorInput
from onnxplain.errors import InputError
from onnxplain.stream import Video, explain_stream
from onnxplain.stream.recording import Recording

from .conftest import Letting, Quick, Stepped, times, write_video

FRAMES = 15
IN_THREES = [0, 3, 6, 9, 12, 14]  # what is explained where three frames come in the time of one


class Kept:
    """Remembers which frames were shown, and wants no more than `most`."""

    def __init__(self, most: int = 1000) -> None:
        self.most = most
        self.frames, self.images = [], []

    def show(self, image, frame):
        self.frames.append(frame)
        self.images.append(image)
        return len(self.frames) < self.most

    @property
    def times(self):
        return [frame.pts * frame.time_base for frame in self.frames]


def test_a_fast_explainer_drops_nothing(colours):
    kept = Kept()
    with Stepped(colours) as video:
        report = explain_stream(video, Quick(), [kept, Letting(video, 1)])
    assert (report.read, report.explained, report.dropped) == (FRAMES, FRAMES, 0)
    assert kept.times == times(colours)


def test_a_slow_explainer_explains_the_newest_frame_and_counts_the_others(colours, monkeypatch):
    clock, kept = SimpleNamespace(now=0.0), Kept()
    monkeypatch.setattr("onnxplain.stream.run.time", SimpleNamespace(monotonic=lambda: clock.now))

    class Slow(Quick):
        def __call__(self, images, targets, temperature):
            clock.now += 0.3
            return super().__call__(images, targets, temperature)

    with Stepped(colours, lambda: clock.now) as video:
        report = explain_stream(video, Slow(), [kept, Letting(video, 3)])
    assert (report.read, report.explained, report.dropped) == (FRAMES, 6, 9)
    assert kept.times == [times(colours)[number] for number in IN_THREES]
    assert list(report.latencies) == pytest.approx([0.3] * 6)
    assert report.latency == pytest.approx(0.3)
    assert report.rate == pytest.approx(1 / 0.3)


def test_a_recording_has_the_times_of_the_frames_that_it_explains(colours, tmp_path):
    for count, name in ((1, "all.mp4"), (3, "some.mkv")):
        path, kept = tmp_path / name, Kept()
        with Stepped(colours) as video, Recording(path, video) as recording:
            report = explain_stream(video, Quick(), [kept, recording, Letting(video, count)])
        assert list(map(float, times(path))) == pytest.approx(kept.times, abs=1e-3)
        assert len(times(path)) == report.explained


def test_a_recording_of_a_camera_begins_with_its_first_frame(colours, tmp_path):
    path = tmp_path / "camera.mp4"
    with Video(str(colours)) as video, Recording(path, video) as recording:
        video.live = True
        hour = round(3600 / video.time_base)  # that it was on before
        for frame in video.frames():
            recording.show(frame.image(), replace(frame, pts=frame.pts + hour))
    assert times(path) == times(colours)


def test_a_clock_that_goes_back_ends_a_recording_with_a_sentence(colours, tmp_path):
    def record(path):
        with Video(str(colours)) as video, Recording(path, video) as recording:
            video.live = True
            frames = list(video.frames())
            for frame in (*frames[5:], *frames):
                recording.show(frame.image(), frame)

    with pytest.raises(InputError, match=r"cannot write '.*camera\.mp4'"):
        record(tmp_path / "camera.mp4")


def test_the_explanation_is_of_the_frame_that_it_is_shown_with(colours):
    named = []

    class Naming(Quick):
        def __call__(self, images, targets, temperature):
            explanation = super().__call__(images, targets, temperature)
            named.append(explanation.names[0])
            return explanation

    kept = Kept()
    with Stepped(colours) as video:
        explain_stream(video, Naming(), [kept, Letting(video, 3)])
    colour = ("red", "green", "blue")
    shown = [colour[int(2 * frame.seconds + 1e-6)] for frame in kept.frames]
    assert named[1:] == shown  # the first warms up
    assert len(set(shown)) == 3


def test_a_photograph_to_begin_at_is_decoded_before_the_first_frame(colours, tmp_path):
    class Beside(Quick):
        def __init__(self):
            super().__init__()
            own = {"baseline": EstimatorInput("where the path begins")}
            self.metadata = replace(self.metadata, estimator=Estimated("paths", inputs=own))
            self.given = []

        def __call__(self, images, targets, temperature, baseline):
            self.given.append(baseline)
            return super().__call__(images, targets, temperature)

    Image.new("RGB", (9, 9)).save(tmp_path / "black.png")
    explainer, given = Beside(), {"baseline": [str(tmp_path / "black.png")]}
    with Stepped(colours) as video:
        explain_stream(video, explainer, [Kept(2), Letting(video, 1)], inputs=given)
    assert len(explainer.given) == 3
    assert all(one is explainer.given[0] for one in explainer.given)
    assert explainer.given[0].shape == (1, 3, 8, 8)


def test_a_sink_that_has_had_enough_ends_it(colours):
    kept = Kept(most=3)
    with Stepped(colours) as video:
        report = explain_stream(video, Quick(), [kept, Letting(video, 1)])
    assert (report.read, report.explained, report.dropped) == (4, 3, 1)


def test_what_was_recorded_before_an_interruption_is_kept(colours, tmp_path):
    path, kept = tmp_path / "some.mp4", Kept()

    class Interrupted(Kept):
        def show(self, image, frame):
            if len(kept.frames) == 4:
                raise KeyboardInterrupt
            return True

    with (
        suppress(KeyboardInterrupt),
        Stepped(colours) as video,
        Recording(path, video) as recording,
    ):
        explain_stream(video, Quick(), [kept, recording, Interrupted(), Letting(video, 1)])
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
    """Every fifth frame, of ten of each photograph."""
    film = write_video(tmp_path / "film.mp4", list(photographs.values()), each=10)
    explainer, kept = onnxplain.load(lite0, "cpu"), Kept()
    named = []

    class Naming:
        metadata, multi_target, check = explainer.metadata, False, explainer.check

        def __call__(self, *args):
            explanation = explainer(*args)
            named.append(explanation.names[0])
            return explanation

    with Stepped(film) as video:
        report = explain_stream(video, Naming(), [kept, Letting(video, 5)])
    assert (report.read, report.explained, report.dropped) == (30, 7, 23)
    at = np.array([frame.seconds for frame in kept.frames])
    names = np.array(named[1:])
    assert {"espresso"} == set(names[(at >= 1) & (at < 2)])
    assert set(names[at < 1]) <= {"Egyptian cat", "tabby", "tiger cat", "lynx"}
    assert set(names[at >= 2]) & {"missile", "obelisk", "projectile", "radio"}
    assert all(image.size == (320, 240) for image in kept.images)
