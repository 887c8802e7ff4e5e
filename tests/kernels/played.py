"""The CUDA kernels, their threads played by the processor: `cuda_kernels.cu` as a C++ library."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from .cases import DTYPES, Call
from .conftest import KERNELS

HERE = Path(__file__).parent

LAUNCH = re.compile(
    r"([\w:]+(?:<[^<>;()]*>)?)\s*<<<([^;]*?),\s*(\w+),[^;]*?>>>\((.*?)\);", re.DOTALL
)
SHARED = "extern __shared__ Statistics kept[];"

ENTRIES = """
extern "C" {
using namespace onnxplain;
void played_gate(int dtype, int kind, const void* z, const void* g, void* out, size_t n,
                 size_t targets, const void* T) {
  cuda_gate(dtype, GateKind(kind), z, g, out, n, targets, T, nullptr);
}
void played_pool(int dtype, const Pool* pool, int held, const void* x, const void* g, void* out,
                 size_t planes, size_t targets, const void* T) {
  cuda_pool_grad(dtype, *pool, held, x, g, out, planes, targets, T, nullptr);
}
}
"""


def toolkit() -> Path:
    """CUDA's headers."""
    nvcc = shutil.which("nvcc")
    for folder in [Path("/usr/local/cuda"), *([Path(nvcc).resolve().parents[1]] if nvcc else [])]:
        if (folder / "include" / "cuda_fp16.h").exists():
            return folder / "include"
    found = sorted(Path("/usr/local").glob("cuda*/include/cuda_fp16.h"))
    if not found:
        pytest.skip("CUDA's headers are not here")
    return found[-1].parent


def translated(source: str) -> str:
    """With `launch` in place of the brackets that C++ does not know."""
    played, launches = LAUNCH.subn(r"launch(\2, \3, [&] { \1(\4); });", source)
    assert launches == source.count("<<<")
    assert SHARED in played
    played = played.replace(SHARED, "static Statistics kept[kShared / sizeof(Statistics)];")
    return re.sub(r"#include <cuda_\w+.h>", "", played)


def compiled(folder: Path) -> ctypes.CDLL:
    headers, library = toolkit(), folder / "played.so"
    source = (KERNELS / "library" / "cuda_kernels.cu").read_text()
    code = '#include "play_cuda.h"\n' + translated(source) + ENTRIES
    (folder / "played.cpp").write_text(code)
    command = ["c++", "-std=c++20", "-O1", "-shared", "-fPIC", "-pthread", "-w"]
    folders = [f"-I{path}" for path in (HERE, KERNELS / "library", headers)]
    subprocess.run([*command, *folders, str(folder / "played.cpp"), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def run(library: ctypes.CDLL, call: Call) -> list[np.ndarray]:
    """What the call computes, as float32."""
    dtype = DTYPES[call.dtype]
    given = [np.ascontiguousarray(array.astype(dtype)) for array in call.inputs]
    made = [np.full(array.shape, 7.0).astype(dtype) for array in call.expected]
    which, normal = list(DTYPES).index(call.dtype), int("Normal" in call.operator)
    n = ctypes.c_size_t(given[0].size)

    def pointers(arrays: Sequence[np.ndarray]) -> list[ctypes.c_void_p]:
        return [ctypes.c_void_p(array.ctypes.data) for array in arrays]

    if "Pool" in call.operator:
        x, g, T = given
        pool = geometry(call)
        planes = x.shape[0] * x.shape[1]
        targets = g.size * made[0].size and made[0].shape[0] // x.shape[0]
        sizes = (ctypes.c_size_t(planes), ctypes.c_size_t(targets))
        held = int(call.operator.startswith("Weighted"))
        x_, g_, T_, out = pointers([x, g, T, made[0]])
        library.played_pool(which, pool, held, x_, g_, out, *sizes, T_)
    else:
        z, g_, T_, out = pointers([*given, *made])
        targets = ctypes.c_size_t(given[1].size // max(given[0].size, 1))
        library.played_gate(which, normal, z, g_, out, n, targets, T_)
    return [array.astype(np.float32) for array in made]


def geometry(call: Call) -> ctypes.Array[ctypes.c_int64]:
    """A `Pool` of pool.h."""
    axes = len(call.attributes["kernel_shape"])
    size, out = call.inputs[0].shape[2:], call.inputs[1].shape[-axes:]
    rest = [call.attributes[n] for n in ("kernel_shape", "strides", "dilations")]
    before = call.attributes["pads"][:axes]
    numbers: list[int] = []
    for values, fill in [(size, 1), (out, 1), *((r, 1) for r in rest), (before, 0)]:
        numbers += [fill] * (3 - axes) + list(values)
    return (ctypes.c_int64 * 18)(*numbers)
