"""The library of custom operators, built and installed once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

KERNELS = Path(__file__).parents[2] / "kernels"


def built(folder: Path, **definitions: str) -> Path:
    """Install `kernels/` into a folder, as pip does, with definitions for CMake."""
    if shutil.which("c++") is None:
        pytest.skip("there is no C++ compiler")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-build-isolation"]
    settings = [f"--config-settings=cmake.define.{k}={v}" for k, v in definitions.items()]
    subprocess.run(
        [*command, "--no-deps", *settings, "--target", str(folder), str(KERNELS)],
        check=True,
        env={**os.environ, "CMAKE_BUILD_PARALLEL_LEVEL": "2"},
    )
    return folder


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for `sys.path` with the package `onnxplain_kernels`; for GPUs too if there is nvcc.

    CUDA's runtime is found when the library is loaded, so that another can take its place.
    """
    folder = tmp_path_factory.mktemp("installed")
    shared = {"CMAKE_CUDA_RUNTIME_LIBRARY": "Shared", "CMAKE_INSTALL_RPATH_USE_LINK_PATH": "ON"}
    return built(folder, **shared)


@pytest.fixture(scope="session")
def library(installed: Path) -> Path:
    """The shared library."""
    return installed / "onnxplain_kernels" / "onnxplain_kernels.so"
