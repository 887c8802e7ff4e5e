"""A folder as the page of examples/camera leaves it: the file, photographs, and the programs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

import onnxplain
from onnxplain.cli import app
from onnxplain.runtime import Explainer, Explanation
from onnxplain.runtime.cache import cache_folder

from ..traces import once
from ..web.conftest import downloads, driver, need_chromium, runtime  # noqa: F401
from .files import EXAMPLES, MODEL, documented, run

HEADERS = {("cstdio", "jpeglib.h"): "libjpeg-dev", ("onnxruntime_cxx_api.h",): "libonnxruntime-dev"}
"""What a program includes, and what brings the last of it."""

ORIENTATION = 0x0112
"""EXIF's tag of how a photograph is to be turned."""


@pytest.fixture(scope="session")
def model() -> Path:
    """What the page's command exports, of a network whose weights are here."""

    def export(path: Path) -> None:
        command = documented("onnxplain export")
        named = {"resnet50": "efficientnet-lite0", MODEL: str(path)}
        arguments = [named.get(word, word) for word in command[1:]]
        done = CliRunner().invoke(app, [*arguments, "--temperature", "1"])
        assert done.exit_code == 0, done.output

    return once(cache_folder("made") / "efficientnet-lite0.camera.onnx", export)


@pytest.fixture(scope="session")
def folder(
    model: Path,
    photographs: dict[str, NDArray[np.uint8]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The file beside the programs, and three JPEGs: in colours, in grey, and lying on its side."""
    folder = tmp_path_factory.mktemp("examples") / "camera"
    shutil.copytree(EXAMPLES, folder)
    (folder / MODEL).symlink_to(model)
    cat, coffee = (Image.fromarray(photographs[name]) for name in ("chelsea", "coffee"))
    cat.save(folder / "cat.jpg", quality=92)
    coffee.convert("L").resize((300, 200)).save(folder / "grey.jpg")
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    cat.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.jpg", exif=exif)
    return folder


@pytest.fixture(scope="session")
def plain(lite0: Path) -> Explainer:
    """The same network and method without a camera: Pillow resizes, the renderer draws."""
    return onnxplain.load(lite0, "cpu", threads=1)


@pytest.fixture(scope="session")
def explanations(folder: Path, plain: Explainer) -> dict[str, Explanation]:
    """What that makes of the photographs."""
    return {path.name: plain(path) for path in folder.glob("*.jpg")}


@pytest.fixture(scope="session")
def program(folder: Path) -> dict[str, str]:
    """The environment in which `./explain` runs, once it is compiled by the page's command.

    The library is that of ONNX Runtime's wheel, the headers are those that the compiler finds.
    """
    command = documented("g++")
    if shutil.which("g++") is None:
        pytest.skip("no g++ here; on Debian: apt-get install g++")
    for headers, package in HEADERS.items():
        asked = ["g++", *(word for word in command if word.startswith("-I")), "-E", "-xc++", "-"]
        source = "".join(f"#include <{header}>\n" for header in headers)
        if subprocess.run(asked, input=source, capture_output=True, text=True).returncode:
            pytest.skip(f"no {headers[-1]} here; on Debian 13: apt-get install {package}")
    packaged = list((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))
    if not packaged:
        pytest.skip("this wheel of ONNX Runtime has no library for C++")
    libraries = folder / "lib"
    libraries.mkdir()
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (libraries / name).symlink_to(packaged[0])
    warned = [*(word for word in command if word != "-O2"), "-Wall", "-Wextra", "-Werror"]
    run(warned, folder, {"LIBRARY_PATH": str(libraries)})
    return {"LD_LIBRARY_PATH": str(libraries)}
