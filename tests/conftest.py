"""Networks and photographs that several test files use."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pickle
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import skimage.data
import torch
from PIL import Image

import onnxplain
from onnxplain.files import replacing
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


@pytest.fixture(scope="session", autouse=True)
def one_thread_per_worker() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def named_networks_are_traced_once() -> Iterator[None]:
    """A network by name is traced by the first test that exports it, for all tests of the run.

    Tracing is most of an export's time, and the same for every method. Networks given as modules
    or files are read anew each time, and so are names in commands, which are other processes.
    """
    from onnxplain.export.sources import source

    kept, trace = cache_folder("traced"), source.from_name

    def from_name(
        name: str, weights: str = "DEFAULT", size: Any = None, layers: Sequence[str] = ()
    ) -> source.Source:
        if weights not in ("DEFAULT", "none"):
            return trace(name, weights, size, layers)
        key = repr((name, weights, size, tuple(layers)))
        file = kept / f"{hashlib.sha256(key.encode()).hexdigest()}.pickle"
        if file.is_file():
            found, model = pickle.loads(file.read_bytes())
            return dataclasses.replace(found, model=ir.from_proto(onnx.load_from_string(model)))
        found = trace(name, weights, size, layers)
        model = ir.to_proto(found.model).SerializeToString()
        kept.mkdir(parents=True, exist_ok=True)
        with replacing(file) as beside:
            beside.write_bytes(pickle.dumps((dataclasses.replace(found, model=None), model)))
        return found

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(source, "from_name", from_name)
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
def lite0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """EfficientNet-Lite0 with its ImageNet weights, excitation at T = 1."""
    path = tmp_path_factory.mktemp("lite0") / "efficientnet-lite0.explain.onnx"
    onnxplain.export("efficientnet-lite0", path, temperature=1.0)
    return path


@pytest.fixture(scope="session")
def lite0_forward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network as the plain `.onnx` file that anybody's exporter writes."""
    from onnxplain.export.sources.source import torch_network

    path = tmp_path_factory.mktemp("lite0") / "efficientnet-lite0.onnx"
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
    return path
