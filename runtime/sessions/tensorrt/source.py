"""An input where it lies: on the host, or on the GPU as other packages share it."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxplain.errors import BackendError
from onnxplain.runtime.inputs.tensors import LEGACY_STREAM, as_numpy, on_host

_KINDS = {0: "int", 1: "uint", 2: "float"}  # DLPack's kDLInt, kDLUInt, kDLFloat


@dataclass(frozen=True)
class Source:
    """Contiguous memory.

    Attributes:
        owner: what must live as long as the memory is read.
        shape: its size.
        dtype: numpy's name.
        pointer: where it starts.
        on_gpu: whether that is on the GPU.
        stream: what may still be writing it; None when it is done.
    """

    owner: Any
    shape: tuple[int, ...]
    dtype: str
    pointer: int
    on_gpu: bool
    stream: int | None = None

    @classmethod
    def of(cls, tensor: Any) -> Source:
        """Of a numpy array, or of a tensor with `__dlpack__` or `__cuda_array_interface__`.

        In this order: torch's tensors have both, and only the first is told which stream will read
        it, so that what a stream of its own still writes is waited for.

        Raises:
            BackendError: it is not contiguous on the GPU, or on another than the first; or its
                package does not share it.
        """
        try:
            if hasattr(tensor, "__dlpack__") and not on_host(tensor):
                if (index := int(tensor.__dlpack_device__()[1])) != 0:
                    raise BackendError(
                        f"a tensor lies on GPU {index}, and the engine runs on GPU 0: pass "
                        "tensor.to('cuda:0')"
                    )
                return _from_dlpack(tensor.__dlpack__(stream=LEGACY_STREAM))
            if (interface := getattr(tensor, "__cuda_array_interface__", None)) is not None:
                return _from_interface(tensor, interface)
            shared = hasattr(tensor, "__dlpack__") and not isinstance(tensor, np.generic)
            array = as_numpy(tensor) if shared else np.asarray(tensor)
        except (BufferError, TypeError) as error:
            raise BackendError(f"a tensor cannot be shared: {error}") from error
        array = array if array.flags.c_contiguous else np.ascontiguousarray(array)
        return cls(array, array.shape, array.dtype.name, array.ctypes.data, on_gpu=False)


def _from_interface(tensor: Any, interface: dict[str, Any]) -> Source:
    """https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html"""
    shape, dtype = tuple(interface["shape"]), np.dtype(interface["typestr"])
    strides = interface.get("strides")
    if strides is not None:
        _require_dense(shape, [step // dtype.itemsize for step in strides])
    stream = interface.get("stream", LEGACY_STREAM)
    return Source(tensor, shape, dtype.name, interface["data"][0], True, stream)


class _DLTensor(ctypes.Structure):
    """`DLTensor` of dlpack.h, with which a `DLManagedTensor` begins."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


def _from_dlpack(capsule: Any) -> Source:
    """Borrow it: a capsule that nobody has taken gives the memory back when it goes."""
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    tensor = _DLTensor.from_address(get(capsule, b"dltensor"))
    shape = tuple(tensor.shape[: tensor.ndim])
    if tensor.strides:
        _require_dense(shape, tensor.strides[: tensor.ndim])
    dtype = f"{_KINDS.get(tensor.code, 'unknown type ')}{tensor.bits}"
    pointer = (tensor.data or 0) + tensor.byte_offset
    return Source(capsule, shape, dtype, pointer, True, LEGACY_STREAM)


def _require_dense(shape: Sequence[int], strides: Sequence[int]) -> None:
    """Strides count elements; that of an axis of one element says nothing."""
    dense = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size > 1 and stride != dense:
            raise BackendError("a tensor on the GPU must be contiguous: call .contiguous() on it")
        dense *= size
