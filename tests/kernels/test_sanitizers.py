"""The library under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from .cases import calls
from .conftest import built

pytestmark = [pytest.mark.xdist_group("kernels"), pytest.mark.sweep]

FLAGS = "-fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all -g1"
SCRIPT = Path(__file__).parent / "run_models.py"
KINDS = ("SoftGate", "ReluNormalGate", "pool")


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


def run(library: Path, jobs: list[tuple[bytes, dict[str, np.ndarray]]], folder: Path) -> str:
    """Run all of them under the sanitizers; what these say, or nothing."""
    given, made = folder / "given.pickle", folder / "made.pickle"
    given.write_bytes(pickle.dumps(jobs))
    environment = {
        **os.environ,
        "LD_PRELOAD": ":".join(sanitizers()),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python and ONNX Runtime keep what they have
    }
    command = [sys.executable, str(SCRIPT), str(library), str(given), str(made)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stderr


def test_nothing_is_read_or_written_that_is_not_the_librarys_nor_undefined(
    sanitized: Path, tmp_path: Path
):
    chosen = [call for name, call in calls().items() if name.startswith(KINDS)]
    jobs = [
        (call.model().SerializeToString(), {f"x{i}": x for i, x in enumerate(call.inputs)})
        for call in chosen
    ]
    assert run(sanitized, jobs, tmp_path) == ""
    found = pickle.loads((tmp_path / "made.pickle").read_bytes())
    for call, outputs in zip(chosen, found, strict=True):
        call.check(outputs)
