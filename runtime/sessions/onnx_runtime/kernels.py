"""The custom operators of `onnxplain-kernels`, for graphs that call them (`export --kernels`).

ONNX Runtime takes a registered operator in place of the file's function of that name; without one,
it runs the function.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from onnxplain.runtime.onnx_file import kernel_calls

if TYPE_CHECKING:
    import onnxruntime

INSTALL = "pip install ./kernels, in a checkout of onnxplain"


def library() -> str | None:
    """The path of the shared library; None where the package is not installed."""
    try:
        import onnxplain_kernels
    except ImportError:
        return None
    return onnxplain_kernels.library()


def has_cuda() -> bool:
    """Whether the library is installed, and with kernels for GPUs."""
    if library() is None:
        return False
    import onnxplain_kernels

    return bool(onnxplain_kernels.has_cuda())


def described() -> str:
    """What is installed, for people to read."""
    if library() is None:
        return f"onnxplain-kernels is not installed: {INSTALL}"
    import onnxplain_kernels

    cuda = "with CUDA" if has_cuda() else "without CUDA"
    return f"onnxplain-kernels {onnxplain_kernels.__version__}, {cuda}"


def register(options: onnxruntime.SessionOptions, path: Path) -> bool:
    """Let a session of the graph at `path` use the operators, if it calls any and they are here."""
    found = library()
    if found is None or not kernel_calls(path):
        return False
    options.register_custom_ops_library(found)
    return True
