"""A library that stands between ONNX Runtime and ours, and counts what ours calls."""

from __future__ import annotations

import ctypes
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .conftest import KERNELS

SOURCES = KERNELS / "library"


@dataclass(frozen=True)
class Counting:
    path: Path
    handle: ctypes.CDLL
    """Or ONNX Runtime would unload it, and what it counted, with the last session."""

    def counts(self) -> dict[str, int]:
        """How often each function that is declared was called."""
        header = (SOURCES / "onnxruntime.h").read_text()
        names = re.findall(r"^  _\((\w+), \d+,", header, re.MULTILINE)
        count_of = self.handle.count_of
        count_of.restype = ctypes.c_long
        return {name: count_of(name.encode()) for name in names}


def counting_library(library: Path, folder: Path, newest: int = 1000) -> Counting:
    """Compile it; a runtime that it shows to ours has no newer interface than `newest`."""
    path = folder / "counting.so"
    definitions = [f'-DLIBRARY="{library}"', f"-DNEWEST={newest}"]
    source = Path(__file__).parent / "counting.cpp"
    command = ["c++", "-std=c++17", "-shared", "-fPIC", *definitions, f"-I{SOURCES}"]
    subprocess.run([*command, str(source), "-o", str(path), "-ldl"], check=True)
    return Counting(path, ctypes.CDLL(str(path)))
