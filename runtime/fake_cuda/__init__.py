"""A CUDA runtime that answers and computes nothing, for ONNX Runtime's real CUDA provider.

With it a session is built, partitioned, optimised and run on a machine without a GPU: which nodes
stay on the GPU, how many kernels a run launches, what is captured as a CUDA graph, and what is said
where CUDA fails. Never what the numbers are, nor how long anything takes.
"""

from __future__ import annotations

import mmap
import os
import re
import shutil
import subprocess
from ctypes.util import find_library
from functools import cache
from importlib.util import find_spec
from itertools import filterfalse
from pathlib import Path

from onnxplain.errors import BackendError
from onnxplain.extras import install

HERE = Path(__file__).parent

_HEADERS = ("cuda_runtime_api.h", "crt/host_defines.h")
_REAL = ("cublas", "cublasLt", "cudart", "curand")
"""The libraries of CUDA that the provider is linked with, which are loaded as they are."""

_LIBRARY = "int fake_cuda_library(const char *, int);\n"
_COMPUTES = re.compile(
    "gemm|Gemm|geam|copy|scal_|Matmul$|Execute$|Forward(Training|Inference)?$|Tensor$"
)


def missing() -> str | None:
    """What stands in the way of building it; None if nothing does."""
    if not _provider().exists():
        return "the installed ONNX Runtime has no CUDA provider: pip install onnxruntime-gpu"
    if shutil.which("gcc") is None:
        return "there is no gcc"
    if _headers() is None:
        return "nothing here brings CUDA's headers; the package triton does, which torch brings"
    if (library := next(filterfalse(_is_installed, _REAL), None)) is not None:
        return f"CUDA's lib{library} is not installed: {install('cuda')}"
    return None


def build(folder: Path) -> dict[str, str]:
    """Compile it into `folder`, in a second or two.

    Returns:
        The environment of a process that sees it in place of CUDA.

    Raises:
        BackendError: something that it is built of is missing; or the folder's name has a space or
            a colon, which the loader takes for ends.
    """
    if (reason := missing()) is not None:
        raise BackendError(
            f"what ONNX Runtime's CUDA provider does with a graph cannot be asked here: {reason}"
        )
    if set(" :") & set(str(folder)):
        raise BackendError(
            f"the stand-in for CUDA cannot be loaded from '{folder}', for its space or colon; set "
            "TMPDIR to another folder"
        )
    driver, libraries = folder / "libcuda.so.1", folder / "libcudnn.so.9"
    _compile(driver, HERE / "cuda.c", f"-I{_headers()}")
    stubs = folder / "stubs.c"
    own = set(re.findall(r"\w+", (HERE / "libraries.c").read_text()))
    others = [name for name in _called() if name not in own]
    stubs.write_text("".join([_LIBRARY, *map(_stub, others)]))
    _compile(libraries, HERE / "libraries.c", stubs)
    preloaded = [str(driver), str(libraries), *filter(None, [os.environ.get("LD_PRELOAD")])]
    return {**os.environ, "LD_PRELOAD": ":".join(preloaded)}


def _compile(library: Path, *sources: Path | str) -> None:
    flags = ["-shared", "-fPIC", "-O1", "-std=gnu17", "-w", f"-Wl,-soname,{library.name}"]
    subprocess.run(["gcc", *flags, "-o", str(library), *map(str, sources)], check=True)  # noqa: S607  (the compiler that there is)


def _stub(name: str) -> str:
    computes = int(_COMPUTES.search(name) is not None)
    return f'int {name}() {{ return fake_cuda_library("{name}", {computes}); }}\n'


def _called() -> list[str]:
    """The functions of cuBLAS and cuDNN that the provider calls, by link or by name."""
    with _provider().open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as text:
        names = re.findall(rb"\0((?:cublas|cudnn)[A-Z]\w+)(?=\0)", text)
    return sorted({name.decode() for name in names})


def _provider() -> Path:
    """ONNX Runtime's CUDA provider."""
    return _package("onnxruntime") / "capi" / "libonnxruntime_providers_cuda.so"


@cache
def _headers() -> Path | None:
    """A folder with CUDA's headers; a wheel of the runtime has them all but nvcc's."""
    folders = [
        _package("triton") / "backends" / "nvidia" / "include",
        _package("nvidia") / "cu13" / "include",
        *Path("/usr/local").glob("cuda*/include"),
    ]
    return next((f for f in folders if all((f / name).exists() for name in _HEADERS)), None)


def _is_installed(library: str) -> bool:
    wheels = _package("nvidia").glob(f"cu*/lib/lib{library}.so.*")
    return any(wheels) or find_library(library) is not None


def _package(name: str) -> Path:
    """A package's folder, or one that is not there."""
    spec = find_spec(name)
    places = None if spec is None else spec.submodule_search_locations
    return Path(next(iter(places), "")) if places else Path("/nowhere")
