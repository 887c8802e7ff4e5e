"""The library in processes of its own: under sanitizers, and with other sets of instructions."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from .cases import MAKERS, Call, call_of
from .conftest import built

pytestmark = [pytest.mark.xdist_group("kernels"), pytest.mark.sweep]

FLAGS = "-fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all -g1"
SCRIPT = Path(__file__).parent / "run_models.py"
KINDS = ("SoftGate", "NormalGate", "pool")


def sanitizers() -> list[str]:
    """The libraries that a program must be started with."""
    found = []
    for name in ("libasan.so", "libubsan.so", "libstdc++.so"):
        command = ["c++", f"-print-file-name={name}"]
        found.append(subprocess.run(command, capture_output=True, text=True).stdout.strip())
    return found


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = built(
        tmp_path_factory.mktemp("sanitized"), ONNXPLAIN_CUDA="OFF", CMAKE_CXX_FLAGS=FLAGS
    )
    if not all(map(os.path.isabs, sanitizers())):
        pytest.skip("the compiler brings no sanitizers")
    return folder / "onnxplain_kernels" / "onnxplain_kernels.so"


def run(library: Path, chosen: list[Call], folder: Path, **environment: str) -> str:
    """Run the calls in a process and check their results; what it says if it fails, or nothing."""
    given, made = folder / "given.pickle", folder / "made.pickle"
    jobs = [
        (call.model().SerializeToString(), {f"x{i}": x for i, x in enumerate(call.inputs)})
        for call in chosen
    ]
    given.write_bytes(pickle.dumps(jobs))
    command = [sys.executable, str(SCRIPT), str(library), str(given), str(made)]
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True
    )
    if done.returncode:
        return done.stderr
    for call, outputs in zip(chosen, pickle.loads(made.read_bytes()), strict=True):
        call.check(outputs)
    return ""


@pytest.fixture(scope="module")
def chosen() -> list[Call]:
    return [call_of(name) for name in MAKERS if name.startswith(KINDS)]


def test_nothing_is_read_or_written_that_is_not_the_librarys_nor_undefined(
    sanitized: Path, chosen: list[Call], tmp_path: Path
):
    preloaded = ":".join(sanitizers())
    # Python and ONNX Runtime keep what they have.
    assert (
        run(sanitized, chosen, tmp_path, LD_PRELOAD=preloaded, ASAN_OPTIONS="detect_leaks=0") == ""
    )


@pytest.mark.parametrize("instructions", ["baseline", "avx2"])
def test_every_set_of_instructions_computes_the_same(
    instructions: str, library: Path, chosen: list[Call], tmp_path: Path
):
    assert run(library, chosen, tmp_path, ONNXPLAIN_INSTRUCTIONS=instructions) == ""
