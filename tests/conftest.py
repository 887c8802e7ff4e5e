"""Networks and photographs that several test files use.

PyTorch is imported where it is needed: the process that only hands out the tests does without.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

import onnxplain
from onnxplain.comparison import COMPARISONS, Comparison
from onnxplain.reading import trusted
from onnxplain.runtime import Explainer
from onnxplain.runtime.cache import cache_folder


def pytest_configure(config: pytest.Config) -> None:
    """What tests and their commands compile is kept in a folder made anew, not the user's."""
    if hasattr(config, "workerinput"):
        return  # workers inherit it
    cache = Path(tempfile.mkdtemp(prefix="onnxplain-tests-"))
    config.add_cleanup(lambda: shutil.rmtree(cache, ignore_errors=True))
    downloaded = cache_folder("onnxruntime-web").parent
    os.environ["XDG_CACHE_HOME"] = str(cache)
    (cache / "onnxplain").mkdir()
    for archive in downloaded.glob("onnxruntime-web-*.tgz"):
        shutil.copy(archive, cache / "onnxplain")


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: some tests wait for browsers, servers and clocks."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(scope="session", autouse=True)
def one_thread_per_worker() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def exports_are_compared_where_tests_ask_for_it() -> Iterator[list[Comparison]]:
    """Most compare more themselves, and a session for each export would take half a minute."""
    left_out, COMPARISONS[:] = COMPARISONS[:], []
    yield left_out
    COMPARISONS[:] = left_out


@pytest.fixture
def compared(exports_are_compared_where_tests_ask_for_it: list[Comparison]) -> Iterator[None]:
    """Exports are compared with their source, as users' are."""
    COMPARISONS[:] = exports_are_compared_where_tests_ask_for_it
    yield
    COMPARISONS.clear()


@pytest.fixture(scope="session", autouse=True)
def networks_are_traced_once() -> Iterator[None]:
    """By the first test that exports them, but for commands in processes of their own."""
    from .traces import kept

    with kept(cache_folder("traced")):
        yield


@pytest.fixture(scope="session")
def photographs() -> dict[str, np.ndarray]:
    """Real photographs, uint8 [H, W, 3]."""
    return {name: getattr(skimage.data, name)() for name in ("chelsea", "coffee", "rocket")}


@pytest.fixture
def photo_folder(tmp_path: Path, photographs: dict[str, np.ndarray]) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for name, pixels in photographs.items():
        Image.fromarray(pixels).save(folder / f"{name}.jpg")
    return folder


@pytest.fixture(scope="session")
def lite0() -> Path:
    """EfficientNet-Lite0 with its ImageNet weights, excitation at T = 1."""
    from .traces import once

    return once(
        cache_folder("made") / "efficientnet-lite0.explain.onnx",
        lambda path: onnxplain.export("efficientnet-lite0", path, temperature=1.0),
    )


@pytest.fixture(scope="session")
def lite0_forward() -> Path:
    """The same network as the plain `.onnx` file that anybody's exporter writes."""
    import torch

    from onnxplain.export.sources.source import torch_network

    from .traces import once

    def write(path: Path) -> None:
        network = torch_network("efficientnet-lite0")
        torch.onnx.export(
            network.module,
            (torch.zeros(2, 3, 224, 224),),
            path,
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=20,
            external_data=False,
            verbose=False,
        )

    return once(cache_folder("made") / "efficientnet-lite0.onnx", write)


@pytest.fixture(scope="session")
def kinds() -> dict[str, Explainer]:
    """Small explain graphs that are no classifiers, by what they are of."""
    from .objectives.kinds import of_every_kind

    return of_every_kind()


@pytest.fixture
def trusting() -> Iterator[None]:
    """As `onnxplain --trust` does."""
    token = trusted.set(True)
    yield
    trusted.reset(token)
