"""Tensors of other packages (torch, CuPy, JAX, numba), taken and given back where they lie.

By the interfaces that such packages agreed on: DLPack, and `__cuda_array_interface__`.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEGACY_STREAM = 1
"""DLPack's and CUDA's name of the default stream; a producer is told that it reads the tensor."""

_HOST = (1, 3)  # DLPack's kDLCPU and kDLCUDAHost


def is_tensor(thing: object) -> bool:
    """Whether it is an array of another package than numpy."""
    shared = hasattr(thing, "__dlpack__") or hasattr(thing, "__cuda_array_interface__")
    return shared and not isinstance(thing, (np.ndarray, np.generic))


def on_host(tensor: Any) -> bool:
    """Whether the processor can read it."""
    if isinstance(tensor, (np.ndarray, np.generic)):
        return True
    return hasattr(tensor, "__dlpack_device__") and int(tensor.__dlpack_device__()[0]) in _HOST


def dtype_name(tensor: Any) -> str:
    """ "float32" for `torch.float32` as for numpy's."""
    return str(tensor.dtype).rpartition(".")[2]


def as_numpy(tensor: Any) -> NDArray[Any]:
    """A host tensor as a numpy array, sharing its memory where possible.

    Raises:
        BufferError, TypeError: its package does not share it.
    """
    return np.asarray(np.from_dlpack(tensor), order="C")  # which leaves a scalar one


def like(result: Any, example: Any) -> Any:
    """`result` as an array of `example`'s package, sharing its memory.

    Where the package has no way to take it, it is returned as it is, with one of the interfaces.
    """
    if hasattr(example, "__array_namespace__"):
        package = example.__array_namespace__()
    else:
        package = sys.modules[type(example).__module__.partition(".")[0]]
    if hasattr(result, "__dlpack__") and hasattr(package, "from_dlpack"):
        return package.from_dlpack(result)
    take = getattr(package, "as_tensor", None) or getattr(package, "asarray", None)
    return result if take is None else take(result)
