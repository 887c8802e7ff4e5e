"""The command `onnxplain stream`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onnxplain.cli.app import (
    Model,
    Precision,
    Provider,
    Temperature,
    as_target,
    command,
    err,
    out,
)

if TYPE_CHECKING:
    from onnxplain.stream import Report, Video


@command
def stream(
    model: Model,
    source: Annotated[
        str, typer.Argument(help="A video file, a camera (0, 1, …), or a URL such as rtsp://…")
    ],
    path: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write a video file, .mp4 or .mkv.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--http", min=0, max=65535, help="Show it in a browser, on this port."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Who may look with --http: 0.0.0.0 is everybody, unasked.")
    ] = "127.0.0.1",
    target: Annotated[
        str,
        typer.Option("--target", "-t", help="A class index or name; -1 the predicted one."),
    ] = "-1",
    temperature: Temperature = None,
    provider: Provider = "auto",
    precision: Precision = "float32",
) -> None:
    """Explain a video as it runs: in a window, or in a file or a browser.

    A file runs at its own pace. Frames that come while one is being explained are dropped, so that
    what is shown is never late by more than explaining one takes; the line below the picture has
    the latency and the count. A written file has the video's own times. Ctrl-C ends it, and keeps
    what was written.

    \b
        onnxplain stream model.explain.onnx film.mp4
        onnxplain stream model.explain.onnx 0 --http 8080
        onnxplain stream model.explain.onnx rtsp://camera/1 -o why.mkv
    """
    import onnxplain
    from onnxplain.stream import Video, explain_stream

    explainer = onnxplain.load(model, provider, precision)
    backend = explainer.backend
    err.print(f"{backend.name} on {backend.device} in {backend.precision}", highlight=False)
    with ExitStack() as stack:
        video = stack.enter_context(Video(source))
        sinks = [stack.enter_context(sink) for sink in _sinks(video, path, port, host)]
        status = stack.enter_context(err.status("waiting for the first frame"))
        report: Report | None = None

        def watch(now: Report) -> None:
            nonlocal report
            report = now
            status.update(_said(now))

        try:
            report = explain_stream(video, explainer, sinks, as_target(target), temperature, watch)
        finally:
            status.stop()
            if report is not None:
                out.print(_said(report), highlight=False, soft_wrap=True)
            if video.damaged:
                err.print(f"{video.damaged} damaged packets passed over", highlight=False)


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
        err.print(f"look at {server.url}", highlight=False)
        yield server
    if path is None and port is None:
        from onnxplain.stream.window import Window

        yield Window(f"onnxplain: {video.source}")


def _said(report: Report) -> str:
    return (
        f"{report.read} frames read, {report.explained} explained, {report.dropped} dropped; "
        f"{report.rate:.1f} frames/s, {1000 * report.latency:.0f} ms from due to drawn"
    )
