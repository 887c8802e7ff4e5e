"""The loop: the newest frame is explained and shown; frames that came meanwhile are dropped."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from types import MappingProxyType
from typing import Any, Protocol

from PIL import Image

from onnxplain.contract.objective import BOX
from onnxplain.contract.picture import PictureOptions
from onnxplain.runtime import Explainer, Explanation
from onnxplain.runtime.inputs.estimator import decoded_once
from onnxplain.stream.explaining import Asked, explain_frame
from onnxplain.stream.latest import Latest
from onnxplain.stream.picture import OVERLAID, check_look, write_line
from onnxplain.stream.source import Frame, Video

_REMEMBERED = 1000


class Sink(Protocol):
    """Where explained frames go."""

    def show(self, image: Image.Image, frame: Frame) -> bool:
        """Take an explained frame; return False when no more are wanted."""
        ...


@dataclass
class Report:
    """What has happened so far.

    Attributes:
        read, explained, dropped: numbers of frames; `read` is the sum of the others, apart from
            one that is waiting or being explained.
        latencies: seconds between when a frame was due and when its explanation was drawn, for the
            last thousand.
        finished: when each of those was drawn, by `time.monotonic`.
        size: width and height of the newest explained frame.
    """

    read: int = 0
    explained: int = 0
    dropped: int = 0
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    finished: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    size: tuple[int, int] = (0, 0)

    @property
    def latency(self) -> float:
        """The median latency of the last thousand frames, in seconds; 0 before the first."""
        return median(self.latencies) if self.latencies else 0.0

    @property
    def rate(self) -> float:
        """Explained frames per second, over the last thousand; 0 before there are two."""
        if len(self.finished) < 2:
            return 0.0
        return (len(self.finished) - 1) / (self.finished[-1] - self.finished[0])


def explain_stream(
    video: Video,
    explainer: Explainer,
    sinks: Sequence[Sink],
    target: int | str | None = None,
    temperature: float | None = None,
    watch: Callable[[Report], object] = lambda report: None,
    inputs: Mapping[str, Any] = MappingProxyType({}),
    look: PictureOptions = OVERLAID,
) -> Report:
    """Explain a video until it ends, a sink has had enough, or an exception is raised.

    Frames are read on another thread, and the newest one is explained. A frame that is still
    waiting when the next arrives is dropped, so that what is shown is never later than explaining
    takes.

    Args:
        target: a class index or name; negative from the top of the ranking; None for what the
            file explains by itself.
        temperature: for a graph exported with --live-temperature.
        watch: called after each explained frame.
        inputs: what the file's objective and estimator take besides, the same for all frames; boxes
            in their pixels.
        look: of the frames.

    Raises:
        InputError: the source broke off, or the graph cannot take the target, temperature or
            inputs.
        BackendError: the runtime failed.
    """
    explainer.metadata.require_image("a stream")
    check_look(look)
    metadata, targets = explainer.metadata, _targets(explainer, target)
    explainer.check(None if target is None else [target], temperature, inputs)
    pre, inputs = metadata.preprocessing, decoded_once(metadata, inputs)
    # The first run takes several times as long as the others, and a file's clock does not wait.
    asked = Asked(targets, temperature, inputs, look)
    usual = {name: given for name, given in inputs.items() if not _is_box(explainer, name)}
    explainer([Image.new("RGB", (pre.width, pre.height))], targets, temperature, **usual)
    latest: Latest[Frame] = Latest()
    reader = threading.Thread(target=_read, args=(video, latest), name="read", daemon=True)
    report = Report()
    reader.start()
    try:
        wanted = True
        while wanted and (frame := latest.take()) is not None:
            explanation, page = explain_frame(explainer, frame, asked)
            report.size = page.size
            _count(report, latest, frame)
            write_line(page, _line(explanation, report))
            for sink in sinks:
                wanted &= sink.show(page, frame)
            watch(report)
    finally:
        video.stop()
        reader.join()
        latest.abandon()
        report.read, report.dropped = latest.put_count, latest.dropped
    return report


def _targets(explainer: Explainer, target: int | str | None) -> Any:
    if target is None and explainer.metadata.objective.is_class:
        target = -1
    if target is None:
        return None
    return [[target]] if explainer.multi_target else [target]


def _is_box(explainer: Explainer, name: str) -> bool:
    inputs = explainer.metadata.objective.inputs
    return name in inputs and inputs[name].kind == BOX


def _read(video: Video, latest: Latest[Frame]) -> None:
    error = None
    try:
        for frame in video.frames():
            latest.put(frame)
    except Exception as problem:  # raised where frames are taken
        error = problem
    latest.close(error)


def _count(report: Report, latest: Latest[Frame], frame: Frame) -> None:
    now = time.monotonic()
    report.explained += 1
    report.read, report.dropped = latest.put_count, latest.dropped
    report.latencies.append(now - frame.due)
    report.finished.append(now)


def _line(explanation: Explanation, report: Report) -> str:
    (row,) = explanation.rows()
    name, value = row.targets[0]
    number = f"{value:.0%}" if row.probable else row.number(value)
    return (
        f"{name} {number}   {1000 * report.latencies[-1]:.0f} ms   "
        f"{report.rate:.1f} frames/s   {report.dropped} dropped"
    )
