"""Small explain graphs of every kind, served in this process or in one of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray

import onnxplain
from onnxplain.runtime import Explainer
from onnxplain.serve.app import create_app
from onnxplain.serve.service import Service
from onnxplain.serve.settings import Settings

from ..runtime.conftest import HEIGHT, WIDTH, explain_graph
from .bodies import as_png
from .process import Process, started

VARIANTS: dict[str, dict[str, Any]] = {
    "tiny": {},
    "multi": {"multi_target": True},
    "live": {"live_temperature": True},
    "single": {"batch": 1},
    "four": {"batch": 4},
    "nhwc": {"layout": "NHWC"},
    "double": {"dtype": np.float64},
}


@pytest.fixture(scope="session")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name → file, of `VARIANTS`."""
    folder = tmp_path_factory.mktemp("graphs")
    paths = {name: folder / f"{name}.explain.onnx" for name in VARIANTS}
    for name, variant in VARIANTS.items():
        onnx.save(explain_graph(**variant), paths[name])
    return paths


@pytest.fixture(scope="session")
def explainers(graphs: dict[str, Path]) -> dict[str, Explainer]:
    """The runtime itself, with which the service has to agree."""
    return {name: onnxplain.load(path, "cpu", threads=1) for name, path in graphs.items()}


@pytest.fixture
def client(graphs: dict[str, Path]) -> Iterator[TestClient]:
    """Of a service in this process with all of them and what holds by default."""
    with TestClient(create_app(Service(Settings(graphs)))) as client:
        yield client


@pytest.fixture
def serve(graphs: dict[str, Path]) -> Iterator[Callable[..., TestClient]]:
    """Makes clients of services with other settings."""
    with ExitStack() as opened:

        def make(**settings: Any) -> TestClient:
            service = Service(Settings(**{"models": graphs} | settings))
            client = opened.enter_context(TestClient(create_app(service)))
            client.service = service  # type: ignore[attr-defined]
            return client

        yield make


@pytest.fixture(scope="session")
def process(graphs: dict[str, Path]) -> Iterator[Process]:
    """A service in a process of its own, that tests of honest clients share."""
    with started(graphs.values(), "--max-connections", "40") as process:
        yield process


@pytest.fixture(scope="session")
def photograph() -> NDArray[np.uint8]:
    """Larger than the networks' input, and of another shape."""
    return np.random.default_rng(0).integers(0, 256, (2 * HEIGHT, 3 * WIDTH, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def png(photograph: NDArray[np.uint8]) -> bytes:
    return as_png(photograph)


@pytest.fixture
def x() -> NDArray[np.float32]:
    """A normalised image."""
    return np.random.default_rng(1).normal(size=(3, HEIGHT, WIDTH)).astype(np.float32)
