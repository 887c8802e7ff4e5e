"""The command `onnxplain stream`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onnxplain.cli.app import command
from onnxplain.cli.console import err, note, note_backend, say
from onnxplain.cli.declared import with_options
from onnxplain.cli.given import Box, Given, Position, Query, Region, read_inputs
from onnxplain.cli.options import Model, Precision, Provider, Temperature, UsualTarget, as_target
from onnxplain.contract.picture import OVERLAY, PictureOptions

if TYPE_CHECKING:
    from onnxplain.runtime import Explainer
    from onnxplain.stream import Report, Video


Source = Annotated[
    str, typer.Argument(help="A video file, a camera (0, 1, …), or a URL such as rtsp://…")
]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Write a video file, .mp4 or .mkv.")]
Port = Annotated[
    int | None,
    typer.Option("--http", min=0, max=65535, help="Show it in a browser, on this port."),
]
Host = Annotated[
    str, typer.Option(help="Who may look with --http; 0.0.0.0 lets everybody, unasked.")
]

_OF_A_PAGE = ("colour_bar", "captions", "size", "longest")


@command
@with_options("look", PictureOptions, defaults={"style": OVERLAY}, without=_OF_A_PAGE)
def stream(
    model: Model,
    source: Source,
    path: Out = None,
    port: Port = None,
    host: Host = "127.0.0.1",
    target: UsualTarget = None,
    temperature: Temperature = None,
    provider: Provider = "auto",
    precision: Precision = "float32",
    region: Region = None,
    query: Query = None,
    box: Box = None,
    position: Position = None,
    given: Given = None,
    *,
    look: PictureOptions,
) -> None:
    """Explain a video as it runs: in a window, or in a file or a browser.

    A file runs at its own pace. Frames that come while one is being explained are dropped, so that
    what is shown is never later than it takes to explain one; the line below the picture shows the
    latency and the counts. A written file keeps the video's own times. Ctrl-C ends it, and what was
    written is kept; then it says how fast the network alone is.

    \b
        onnxplain stream model.explain.onnx film.mp4
        onnxplain stream yolov8n.explain.onnx street.mp4             # the best object
        onnxplain stream model.explain.onnx 0 --http 8080
        onnxplain stream model.explain.onnx rtsp://camera/1 -o why.mkv
    """
    import onnxplain
    from onnxplain.stream import Video, explain_stream

    explainer = onnxplain.load(model, provider, precision)
    note_backend(explainer)
    named = {"region": region, "query": query, "box": box, "position": position}
    inputs = read_inputs(explainer.metadata, named, given)
    asked = None if target is None else as_target(target)
    with ExitStack() as stack:
        video = stack.enter_context(Video(source))
        sinks = [stack.enter_context(sink) for sink in _sinks(video, path, port, host)]
        status = stack.enter_context(err.status("waiting for the first frame"))
        report: Report | None = None

        def watch(now: Report) -> None:
            nonlocal report
            report = now
            status.update(_line(now))

        try:
            report = explain_stream(
                video, explainer, sinks, asked, temperature, watch, inputs, look
            )
        finally:
            status.stop()
            if report is not None:
                say(_line(report) + _beside(explainer, report))
            if video.damaged:
                note(f"{video.damaged} damaged packets passed over")


def _sinks(
    video: Video, path: Path | None, port: int | None, host: str
) -> Iterator[AbstractContextManager[Any]]:
    """Where the frames go: a window if nothing else was asked for."""
    if path is not None:
        from onnxplain.stream.recording import Recording

        yield Recording(path, video)
    if port is not None:
        from onnxplain.stream.mjpeg import MotionJpeg

        server = MotionJpeg(port, host)
        note(f"look at {server.url}")
        yield server
    if path is None and port is None:
        from onnxplain.stream.window import Window

        yield Window(f"onnxplain: {video.source}")


def _beside(explainer: Explainer, report: Report) -> str:
    """How fast the network alone is, of which every explanation is a multiple."""
    from onnxplain.stream import forward_rate

    rate = forward_rate(explainer, report.size) if report.explained else None
    return "" if rate is None else f"; the network alone {rate:.1f} frames/s"


def _line(report: Report) -> str:
    return (
        f"{report.read} frames read, {report.explained} explained, {report.dropped} dropped; "
        f"{report.rate:.1f} frames/s, {1000 * report.latency:.0f} ms from due to drawn"
    )
