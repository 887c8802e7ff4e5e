"""A video's frames go to a file that takes photographs as they come."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

import onnxplain
from onnxplain.cli import app
from onnxplain.contract.pixels import FORMATS, NV12, Pixels
from onnxplain.runtime.inputs.frames import photograph_of
from onnxplain.runtime.inputs.pixels import frame as packed
from onnxplain.stream import Frame, Video, explain_stream
from onnxplain.stream.explaining import Asked, explain_frame

from ..stream.conftest import write_video
from .files import explain_graph, noise

WIDTH, HEIGHT = 64, 48


def frame_of(picture: av.VideoFrame) -> Frame:
    return Frame(picture, 0, Fraction(1, 10), 0.0)


@pytest.fixture
def rgb() -> NDArray[np.uint8]:
    return cv2.resize(noise(5, 4, 3), (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)


@pytest.mark.parametrize("wanted", FORMATS)
def test_a_frame_lies_as_the_file_takes_it(rgb: NDArray[np.uint8], wanted: str) -> None:
    frame, pixels = frame_of(av.VideoFrame.from_ndarray(rgb, format="rgb24")), Pixels(wanted)
    expected = packed(Image.fromarray(rgb), pixels)
    within = 0 if wanted.startswith(("rgb", "bgr")) else 2
    np.testing.assert_allclose(frame.pixels(pixels).astype(int), expected, atol=within)


@pytest.mark.parametrize("matrix", [Colorspace.ITU601, Colorspace.ITU709])
@pytest.mark.parametrize("levels", [ColorRange.MPEG, ColorRange.JPEG])
def test_nv12_has_the_colours_that_a_graph_takes_it_for(
    rgb: NDArray[np.uint8], matrix: Colorspace, levels: ColorRange
) -> None:
    """Whatever matrix and range the source has: a webcam's JPEG is of full range, HD of BT.709."""
    source = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(
        format="yuv420p", dst_colorspace=matrix, dst_color_range=levels
    )
    source.colorspace, source.color_range = matrix, levels
    frame = frame_of(source)
    shown = cv2.cvtColor(frame.pixels(Pixels(NV12)), cv2.COLOR_YUV2RGB_NV12)
    assert np.abs(shown.astype(int) - np.asarray(frame.image())).mean() < 2


def test_an_odd_frame_and_a_turned_one_lose_nothing_else(
    rgb: NDArray[np.uint8],
) -> None:
    odd = frame_of(av.VideoFrame.from_ndarray(rgb[:45, :61], format="rgb24"))
    assert odd.pixels(Pixels(NV12)).shape == (66, 60)
    seen = photograph_of(odd.pixels(Pixels(NV12)), Pixels(NV12)).astype(int)
    assert np.abs(seen - rgb[:44, :60]).mean() < 4

    class Turned:
        rotation, width, height = 90, WIDTH, HEIGHT

        def to_ndarray(self, format: str) -> NDArray[np.uint8]:
            return rgb

    turned = Frame(Turned(), 0, Fraction(1, 10), 0.0)  # type: ignore[arg-type]
    np.testing.assert_array_equal(turned.pixels(Pixels("rgb")), np.rot90(rgb))


@pytest.mark.parametrize("kind", ["rgb", "bgr", "nv12", "whole"])
def test_a_frame_is_explained_as_by_the_same_network_without_preprocessing(
    kinds: dict[str, Path], rgb: NDArray[np.uint8], kind: str
) -> None:
    source = av.VideoFrame.from_ndarray(rgb, format="rgb24")
    frame = frame_of(source.reformat(format="yuv420p") if kind == "nv12" else source)
    asked = Asked(targets=[-1])
    found, page = explain_frame(onnxplain.load(kinds[kind], "cpu", threads=1), frame, asked)
    plain = onnxplain.load(kinds["plain"], "cpu", threads=1)
    expected, wanted = explain_frame(plain, frame, asked)
    largest = np.abs(expected.logits).max()
    within = (2e-2 if kind == "nv12" else 1e-3) * largest
    np.testing.assert_allclose(found.logits, expected.logits, atol=within)
    assert page.size == wanted.size == (WIDTH, HEIGHT)
    if kind in ("rgb", "bgr"):  # of whose gradients a step of the pixels changes nothing to be seen
        assert np.abs(np.asarray(page).astype(int) - np.asarray(wanted)).mean() < 0.5


def test_a_file_that_draws_needs_nothing_of_the_frame_but_its_bytes(
    tmp_path: Path, rgb: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = explain_graph(tmp_path, preprocess=True, geometry="photograph", picture="overlay")
    frame = frame_of(av.VideoFrame.from_ndarray(rgb, format="rgb24"))
    explainer = onnxplain.load(path, "cpu", threads=1)
    drawn = explainer(rgb).picture
    assert drawn is not None
    monkeypatch.setattr(Frame, "image", lambda self: pytest.fail("it is made a picture"))
    _, page = explain_frame(explainer, frame, Asked(targets=[-1]))
    np.testing.assert_array_equal(np.asarray(page), drawn[0])


def test_a_transparent_picture_is_no_frame_s(tmp_path: Path, rgb: NDArray[np.uint8]) -> None:
    frame = frame_of(av.VideoFrame.from_ndarray(rgb, format="rgb24"))
    path = explain_graph(tmp_path, preprocess=True, picture="overlay,transparent=true")
    explainer = onnxplain.load(path, "cpu", threads=1)
    _, page = explain_frame(explainer, frame, Asked(targets=[-1]))
    assert page.mode == "RGB"
    expected = explainer(rgb, -1).draw("overlay", longest=max(page.size))
    np.testing.assert_array_equal(np.asarray(page.resize(expected.size, 0)), expected)


def test_a_video_is_explained_and_the_network_alone_is_timed(
    kinds: dict[str, Path], rgb: NDArray[np.uint8], tmp_path: Path
) -> None:
    film = write_video(tmp_path / "film.mp4", [rgb], each=4)
    path = tmp_path / "why.mp4"
    arguments = ["stream", kinds["nv12"], film, "-o", path, "--provider", "cpu"]
    ran = CliRunner().invoke(app, [*map(str, arguments)])
    assert ran.exit_code == 0, ran.output
    explained = re.search(
        r"(\d+) explained, .* frames/s, .*; the network alone ([\d.]+)", ran.stdout
    )
    assert explained is not None
    assert int(explained[1]) >= 1
    assert float(explained[2]) > 0


def test_what_is_shown_is_of_the_frames_size(
    kinds: dict[str, Path], rgb: NDArray[np.uint8], tmp_path: Path
) -> None:
    film, sizes = write_video(tmp_path / "film.mp4", [rgb], each=2), []

    class Kept:
        def show(self, image: Any, frame: Frame) -> bool:
            sizes.append(image.size)
            return True

    with Video(str(film)) as video:
        report = explain_stream(video, onnxplain.load(kinds["whole"], "cpu", threads=1), [Kept()])
    assert {*sizes, report.size} == {(320, 240)}
