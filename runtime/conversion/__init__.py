"""A graph converted when it is loaded, for a runtime that does not take it as the file has it.

What converts needs `onnx_ir`, which a runtime otherwise does without: so it is imported here when
it is first needed.
"""

from __future__ import annotations

from pathlib import Path

from onnxplain.errors import BackendError
from onnxplain.extras import install


def converted(path: Path, precision: str, keep_calls: bool = False) -> bytes:
    """The graph in half precision, or with the biases of an int8 one as floats, as a file's bytes.

    Args:
        path: as `onnxplain.export` writes it; weights beside it are taken in.
        precision: "float16" or "bfloat16"; or "int8" of a network quantised already.
        keep_calls: leave those of `--kernels`, for a runtime that has operators of these names.

    Raises:
        BackendError: an unknown precision, or a graph that cannot be converted; what converts it
            is not installed.
    """
    try:
        from onnxplain.runtime.conversion.half import convert
    except ModuleNotFoundError as error:
        raise BackendError(
            f"{precision} converts the graph when it is loaded, which needs the package "
            f"{error.name}: {install('export')}"
        ) from None
    return convert(path, precision, keep_calls)


def without_functions(path: Path) -> bytes:
    """The graph in standard operators alone, as a file's bytes.

    Raises:
        BackendError: what converts it is not installed.
    """
    try:
        from onnxplain.runtime.conversion.functions import inlined
    except ModuleNotFoundError as error:
        raise BackendError(
            f"'{path}' was exported with kernels=True, and this runtime reads standard operators "
            f"alone: export it without; or, to have them written out here, install the package "
            f"{error.name}: {install('export')}"
        ) from None
    return inlined(path)
