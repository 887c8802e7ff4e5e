"""Sites of a real network, and a browser to open them in."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import onnxplain
from onnxplain.errors import BackendError
from onnxplain.runtime import Explainer
from onnxplain.web import write_site
from onnxplain.web.onnxruntime_web import copy_runtime

from .browser import Page, chromium, served

TEMPERATURE = 1.0
STATIC = Path(__file__).parents[2] / "onnxplain" / "web" / "static"


@pytest.fixture(scope="session")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ONNX Runtime for browsers, out of its archive."""
    folder = tmp_path_factory.mktemp("runtime") / "ort"
    try:
        copy_runtime(folder)
    except BackendError as error:
        pytest.skip(str(error))
    return folder


@pytest.fixture
def unpacked(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sites link to ONNX Runtime's files instead of unpacking them each."""

    def link(folder: Path) -> list[Path]:
        shutil.copytree(runtime, folder, copy_function=os.link)
        return sorted(folder.iterdir())

    monkeypatch.setattr("onnxplain.web.site.copy_runtime", link)


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
def site(live_graph: Path, runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("web") / "site"
    write_site(live_graph, folder)
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
def new_page(driver: Any, address: str) -> Page:
    """The page of the real network, just opened, ready to explain."""
    page = Page(driver, address)
    page.until_loaded()
    return page


@pytest.fixture
def page(driver: Any, address: str) -> Page:
    """The same, with the photograph of the test before: opening it takes a second and a half."""
    page = Page(driver, address, reuse=True)
    page.until_loaded()
    page.take_back()
    return page


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
