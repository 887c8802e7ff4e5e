"""Run a command as on a processor without AVX-512, VNNI and bfloat16: Haswell, Zen 2.

    python tests/processor -m pytest tests/runtime/test_openvino.py

ONNX Runtime and OpenVINO have no setting for it. So copies of their libraries are made in which
each CPUID is a breakpoint, and `mask.c` answers it; PyTorch and NumPy are told by the environment.
Linux on x86-64, with gcc and objdump; the copies, half a gigabyte, are gone afterwards.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

_OPENVINO = ("libopenvino.so.*", "libopenvino_intel_cpu_plugin.so", "libtbb.so.*")
LIBRARIES = {
    "onnxruntime": ["capi/libonnxruntime.so.*", "capi/onnxruntime_pybind11_state.*.so"],
    "openvino": [f"libs/{name}" for name in _OPENVINO],
}
"""Package → those of its libraries that ask the processor what it has."""

SETTINGS = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "NPY_DISABLE_CPU_FEATURES": "AVX512_SKX AVX512_ICL AVX512_SPR X86_V4",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
}
NEWER = re.compile(r" (avx512\w*|avx_vnni|amx\w*)")
CPUID, BREAKPOINT = b"\x0f\xa2", b"\xcc\x90"


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder)
        for package, patterns in LIBRARIES.items():
            spec = find_spec(package)
            if spec is not None and spec.submodule_search_locations:
                shutil.copytree(spec.submodule_search_locations[0], site / package)
                for library in (path for p in patterns for path in (site / package).glob(p)):
                    mask(library)
        if nvidia := find_spec("nvidia"):  # ONNX Runtime looks for CUDA beside itself
            (site / "nvidia").symlink_to(next(iter(nvidia.submodule_search_locations or [])))
        here, flags = Path(__file__).parent, site / "cpuinfo"
        flags.write_text(NEWER.sub("", Path("/proc/cpuinfo").read_text()))
        preloaded = site / "mask.so"
        compiler = ["gcc", "-O1", "-shared", "-fPIC", "-o"]
        subprocess.run([*compiler, str(preloaded), str(here / "mask.c"), "-ldl"], check=True)
        paths = [folder, *filter(None, [os.environ.get("PYTHONPATH")])]
        found = {"LD_PRELOAD": str(preloaded), "MASKED_CPUINFO": str(flags)}
        own = SETTINGS | found | {"PYTHONPATH": os.pathsep.join(paths)}
        return subprocess.run([sys.executable, *sys.argv[1:]], env=os.environ | own).returncode


def mask(library: Path) -> None:
    """Replace every CPUID of a library, in place."""
    code = bytearray(library.read_bytes())
    for at in instructions(library):
        if code[at : at + 2] == CPUID:
            code[at : at + 2] = BREAKPOINT
    library.write_bytes(code)


def instructions(library: Path) -> Iterator[int]:
    """Where in the file each CPUID is."""
    loaded = subprocess.check_output(["readelf", "-lW", library], text=True)
    pattern = r"LOAD\s+0x(\w+)\s+0x(\w+)\s+0x\w+\s+0x(\w+)"
    parts = [[int(number, 16) for number in found] for found in re.findall(pattern, loaded)]
    listed = ["objdump", "-d", "--no-show-raw-insn", str(library)]
    with subprocess.Popen(listed, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            if line.rstrip().endswith("cpuid"):
                address = int(line.split(":")[0], 16)
                for offset, start, size in parts:
                    if start <= address < start + size:
                        yield address - start + offset


if __name__ == "__main__":
    sys.exit(main())
