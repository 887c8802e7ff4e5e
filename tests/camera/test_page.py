"""The page gives a file that takes photographs the pixels of its canvas."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import onnxplain
from onnxplain.contract.pixels import FORMATS, NV12, Pixels
from onnxplain.errors import BackendError
from onnxplain.runtime.inputs.pixels import frame
from onnxplain.web import write_site

from ..web.browser import Page, chromium, served
from ..web.conftest import need_chromium, runtime  # noqa: F401  (fixtures)
from ..web.test_javascript import Node, node  # noqa: F401
from .files import noise

HEIGHT, WIDTH = 58, 47


@pytest.mark.parametrize("pixels", [name for name in FORMATS if name != NV12])
def test_the_pages_bytes_are_pythons(node: Node, pixels: str) -> None:  # noqa: F811
    """Of more rows than a strip has."""
    photograph = noise(301, 13, 3)
    found = node(
        """
        import { frame } from './frame.js';
        const rows = (top, count) => input.subarray(4 * 13 * top, 4 * 13 * (top + count));
        """,
        "frame({ width: 13, height: 301, rows }, options.pixels).bytes",
        np.dstack([photograph, np.full((301, 13), 255, np.uint8)]),
        np.uint8,
        pixels=pixels,
    )
    expected = frame(Image.fromarray(photograph), Pixels(pixels))
    np.testing.assert_array_equal(found, expected.reshape(-1))


@pytest.fixture(scope="module")
def photograph() -> NDArray[np.uint8]:
    return cv2.resize(noise(5, 4, 3), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def page(
    kinds: dict[str, Path],
    runtime: Path,  # noqa: F811
    need_chromium: None,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
    photograph: NDArray[np.uint8],
) -> Iterator[Page]:
    """With two files, bgr first, and the photograph open."""
    folder = tmp_path_factory.mktemp("page")
    Image.fromarray(photograph).save(folder / "photograph.png")
    write_site([kinds["bgr"], kinds["plain"]], folder / "site")
    with served(folder / "site") as address, chromium(folder / "browser") as driver:
        page = Page(driver, address)
        page.until_loaded()
        page.choose(folder / "photograph.png")
        yield page


def pullback(page: Page) -> NDArray[Any]:
    return page.floats("slots[0].explanation.pullback").ravel()


def test_a_photograph_goes_to_the_graph_as_it_is(
    page: Page, kinds: dict[str, Path], photograph: NDArray[np.uint8]
) -> None:
    given = page.script(
        "const { bytes, width, height } = onnxplain.photograph.x;"
        " return [width, height, ...bytes.slice(0, 6)]"
    )
    assert given == [WIDTH, HEIGHT, *photograph[0, 0, ::-1], *photograph[0, 1, ::-1]]
    expected = onnxplain.load(kinds["plain"], "cpu", threads=1)(photograph)
    found, wanted = pullback(page), expected.pullback.ravel()
    assert found @ wanted > 0.9999 * np.linalg.norm(found) * np.linalg.norm(wanted)
    names = [f"class {name}" for name, _ in expected.labels(5)[0]]
    assert [name for name, _ in page.classes()] == names
    assert not page.find("#ascent").is_displayed()
    assert page.errors() == []


def test_another_network_takes_its_own_input(page: Page) -> None:
    page.find("#networks option:nth-child(2)").click()
    page.until_true("s.device && !s.model.pixels")
    page.until_explained()
    assert page.script("return onnxplain.photograph.x.constructor.name") == "Float32Array"
    assert page.find("#ascent").is_displayed()
    assert page.errors() == []


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [("nv12", "export with pixels='rgb'"), ("whole", "without geometry='photograph'")],
)
def test_what_the_page_cannot_give_or_draw_is_refused(
    kinds: dict[str, Path], tmp_path: Path, kind: str, sentence: str
) -> None:
    with pytest.raises(BackendError, match=sentence):
        write_site(kinds[kind], tmp_path / "site")
    assert list(tmp_path.iterdir()) == []
