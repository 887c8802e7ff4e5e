"""Where the custom operators of `onnxplain export --kernels` lie.

options = onnxruntime.SessionOptions()
options.register_custom_ops_library(onnxplain_kernels.library())
"""

import ctypes
from importlib.metadata import version
from pathlib import Path

__version__ = version("onnxplain-kernels")


def library() -> str:
    """The shared library's path, for `SessionOptions.register_custom_ops_library`."""
    (path,) = Path(__file__).parent.glob("onnxplain_kernels.*[!y]")
    return str(path)


def has_cuda() -> bool:
    """Whether the CUDA kernels were compiled in."""
    return bool(ctypes.CDLL(library()).onnxplain_has_cuda())
