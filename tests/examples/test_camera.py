"""One file, four programs without onnxplain: all turn a JPEG into the same picture."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import onnxplain
from onnxplain.runtime import Explainer, Explanation

from ..serve.process import started
from ..web.browser import Page, served
from .files import MODEL, documented, ranking, run

ALONE = (
    "import runpy, sys; sys.modules['onnxplain'] = None; del sys.argv[0];"
    " runpy.run_path(sys.argv[0], run_name='__main__')"
)
"""Runs a program of Python that cannot import onnxplain."""


def assert_same(picture: NDArray[np.uint8], explanation: Explanation) -> None:
    expected = np.asarray(explanation.draw("overlay", colour_bar=False, captions=False))
    assert picture.shape == expected.shape
    assert np.abs(picture.astype(int) - expected).max() <= 1


def assert_ranked(lines: str, explanation: Explanation) -> None:
    found, expected = ranking(lines), explanation.labels(5)[0]
    assert [explanation.class_names[i] for i, _ in found] == [name for name, _ in expected]
    np.testing.assert_allclose([p for _, p in found], [p for _, p in expected], atol=1e-3)


@pytest.mark.parametrize("photograph", ["cat.jpg", "grey.jpg", "turned.jpg"])
def test_python(folder: Path, explanations: dict[str, Explanation], photograph: str) -> None:
    _, *command = documented("python explain.py", photograph)
    said = run([sys.executable, "-c", ALONE, *command], folder)
    assert_same(np.asarray(Image.open(folder / "overlay.png")), explanations[photograph])
    assert_ranked(said, explanations[photograph])
    best = explanations[photograph].labels(1)[0][0][0]
    assert said.splitlines()[0].endswith(best)


@pytest.mark.parametrize("photograph", ["cat.jpg", "grey.jpg"])
def test_cpp(
    folder: Path,
    program: dict[str, str],
    explanations: dict[str, Explanation],
    photograph: str,
) -> None:
    said = run(documented("./explain", photograph), folder, program)
    assert_same(np.asarray(Image.open(folder / "overlay.ppm")), explanations[photograph])
    assert_ranked(said, explanations[photograph])


def test_javascript(
    folder: Path, runtime: Path, driver: Any, explanations: dict[str, Explanation]
) -> None:
    installed = folder / "node_modules" / "onnxruntime-web" / "dist"
    installed.parent.mkdir(parents=True)
    installed.symlink_to(runtime)
    with served(folder) as address:
        page = Page(driver, address)
        page.until(lambda: page.find("#photograph").is_enabled())
        for photograph in ("cat.jpg", "grey.jpg", "turned.jpg"):
            page.script("document.getElementById('status').textContent = ''")
            page.find("#photograph").send_keys(str(folder / photograph))
            page.until(lambda: page.find("#status").text == "Done.")
            canvas = page.find("#picture")
            height, width = (int(canvas.get_attribute(side) or 0) for side in ("height", "width"))
            pixels = page.picture("#picture").reshape(height, width, 4)
            assert (pixels[..., 3] == 255).all()
            assert_same(pixels[..., :3], explanations[photograph])
            assert_ranked(page.find("#classes").text, explanations[photograph])
        assert page.errors() == []


@pytest.mark.parametrize("photograph", ["cat.jpg", "turned.jpg"])
def test_a_client_of_triton(
    folder: Path, explanations: dict[str, Explanation], photograph: str
) -> None:
    _, *command = documented("python triton_client.py", photograph)
    with started([f"model={folder / MODEL}"], "--threads", "1") as process:
        address = process.url.removeprefix("http://")
        command = [address if word == "localhost:8000" else word for word in command]
        said = run([sys.executable, "-c", ALONE, *command], folder)
    assert_same(np.asarray(Image.open(folder / "overlay.png")), explanations[photograph])
    assert_ranked(said, explanations[photograph])


@pytest.mark.parametrize("target", [281, -2])
def test_the_class_may_be_given(
    folder: Path, program: dict[str, str], plain: Explainer, target: int
) -> None:
    run([sys.executable, *documented("python explain.py")[1:], str(target)], folder)
    run([*documented("./explain"), str(target)], folder, program)
    explanation = plain(folder / "cat.jpg", target)
    for written in ("overlay.png", "overlay.ppm"):
        assert_same(np.asarray(Image.open(folder / written)), explanation)


def test_the_package_itself_shows_the_graphs_picture(
    folder: Path, explanations: dict[str, Explanation]
) -> None:
    explainer = onnxplain.load(folder / MODEL, "cpu", threads=1)
    for photograph, expected in explanations.items():
        explanation = explainer(folder / photograph)
        assert explanation.picture is not None
        assert_same(explanation.picture[0], expected)
