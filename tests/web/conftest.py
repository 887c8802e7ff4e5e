"""Sites of a real network, and a browser to open them in."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import onnxplain
from onnxplain.errors import BackendError
from onnxplain.runtime import Explainer
from onnxplain.web import write_site

from .browser import Page, chromium, served

TEMPERATURE = 1.0
STATIC = Path(__file__).parents[2] / "onnxplain" / "web" / "static"


def write_or_skip(graph: Path, folder: Path) -> None:
    try:
        write_site(graph, folder)
    except BackendError as error:
        if "npm" not in str(error):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def live_graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """EfficientNet-Lite0 with its ImageNet weights and the temperature as an input."""
    path = tmp_path_factory.mktemp("web") / "lite0.explain.onnx"
    onnxplain.export("efficientnet-lite0", path, temperature=TEMPERATURE, live_temperature=True)
    return path


@pytest.fixture(scope="session")
def explainer(live_graph: Path) -> Explainer:
    """What the page has to agree with."""
    return onnxplain.load(live_graph)


@pytest.fixture(scope="session")
def site(live_graph: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("web") / "site"
    write_or_skip(live_graph, folder)
    return folder


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    with served(site) as address:
        yield address


@pytest.fixture(scope="session")
def need_chromium() -> None:
    for name in ("chromium", "chromedriver"):
        if shutil.which(name) is None:
            pytest.skip(f"no {name} here; on Debian: apt-get install chromium chromium-driver")


@pytest.fixture(scope="session")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the browser keeps its things."""
    return tmp_path_factory.mktemp("chromium")


@pytest.fixture(scope="session")
def driver(need_chromium: None, downloads: Path) -> Iterator[Any]:
    with chromium(downloads) as driver:
        yield driver


@pytest.fixture
def page(driver: Any, address: str) -> Page:
    """The page of the real network, just opened, ready to explain."""
    page = Page(driver, address)
    page.until_loaded()
    return page


@pytest.fixture
def open_page(driver: Any, tmp_path: Path) -> Iterator[Callable[[Path], Page]]:
    """Opens the page of another explain graph."""
    folder = tmp_path / "site"
    with served(folder) as address:

        def open_site(graph: Path) -> Page:
            write_or_skip(graph, folder)
            page = Page(driver, address)
            page.until_loaded()
            return page

        yield open_site


@pytest.fixture(scope="session")
def cat(tmp_path_factory: pytest.TempPathFactory, photographs: dict[str, np.ndarray]) -> Path:
    path = tmp_path_factory.mktemp("photographs") / "cat.jpg"
    Image.fromarray(photographs["chelsea"]).save(path, quality=92)
    return path


@pytest.fixture(scope="session")
def coffee(tmp_path_factory: pytest.TempPathFactory, photographs: dict[str, np.ndarray]) -> Path:
    path = tmp_path_factory.mktemp("photographs") / "coffee.png"
    Image.fromarray(photographs["coffee"]).save(path)
    return path
