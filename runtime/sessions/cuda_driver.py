"""The few calls of CUDA's driver that the sessions need, by ctypes.

The driver's library comes with the driver, so whoever has a GPU that works has it: no package of
Python, no CUDA toolkit.
"""

from __future__ import annotations

import ctypes
import functools
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import byref, c_char_p, c_int, c_size_t, c_void_p
from dataclasses import dataclass
from typing import Any

from onnxplain.errors import BackendError

_OUT_OF_MEMORY = 2
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING
_LEGACY = 1  # CU_STREAM_LEGACY
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL


class Cuda:
    """A GPU, and the driver's calls for it.

    Args:
        library: the driver's library.
        index: which of the visible GPUs.

    Attributes:
        name: for example "NVIDIA L4".
        sm: its compute capability, 89 for 8.9.

    Raises:
        BackendError: there is no GPU, or the driver does not work.
    """

    def __init__(self, library: Any, index: int = 0) -> None:
        self._library = library
        try:
            self("cuInit", 0)
            device, major, minor = c_int(), c_int(), c_int()
            self("cuDeviceGet", byref(device), index)
            self("cuDeviceGetAttribute", byref(major), _MAJOR, device)
            self("cuDeviceGetAttribute", byref(minor), _MINOR, device)
            name = ctypes.create_string_buffer(256)
            self("cuDeviceGetName", name, 256, device)
        except BackendError as error:
            raise BackendError(f"no NVIDIA GPU / driver found: {error}") from None
        self._device = device
        self.name = name.value.decode()
        self.sm = 10 * major.value + minor.value

    def __call__(self, function: str, *arguments: Any) -> None:
        """Call a function of the driver.

        Raises:
            BackendError: it failed; in the driver's words.
        """
        status = getattr(self._library, function)(*arguments)
        if status == _OUT_OF_MEMORY:
            raise BackendError("the GPU has not enough memory left; run smaller batches")
        if status:
            words = c_char_p()
            self._library.cuGetErrorString(status, byref(words))
            said = (words.value or b"unknown error").decode()
            raise BackendError(f"CUDA's {function} failed: {said} ({status})")

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the GPU that of the calling thread within, whose own is what it was afterwards."""
        self("cuCtxPushCurrent_v2", self._context)
        try:
            yield
        finally:  # a status here would be that of an error before, which is raised already
            self._library.cuCtxPopCurrent_v2(byref(c_void_p()))

    @functools.cached_property
    def _context(self) -> c_void_p:
        """The one that CUDA's runtime, and so torch and TensorRT, use too."""
        context = c_void_p()
        self("cuDevicePrimaryCtxRetain", byref(context), self._device)
        return context


@functools.cache
def _driver() -> Any:
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        return ctypes.CDLL(library)
    except OSError as error:
        raise BackendError(
            f"no NVIDIA GPU / driver found: {library}, which NVIDIA's driver brings, cannot be "
            f"loaded ({error})"
        ) from error


def gpu(index: int = 0) -> Cuda:
    """One of the GPUs that are visible (`CUDA_VISIBLE_DEVICES` says which are).

    Raises:
        BackendError: "no NVIDIA GPU / driver found: …", with the reason.
    """
    return Cuda(_driver(), index)


def gpus() -> list[Cuda]:
    """All that are visible.

    Raises:
        BackendError: as `gpu`.
    """
    first, count = gpu(), c_int()
    first("cuDeviceGetCount", byref(count))
    return [first, *(gpu(index) for index in range(1, count.value))]


class Buffer:
    """Memory on the GPU, given back when nothing refers to it any more."""

    def __init__(self, cuda: Cuda, nbytes: int) -> None:
        pointer = c_void_p()
        cuda("cuMemAlloc_v2", byref(pointer), c_size_t(max(nbytes, 1)))
        assert pointer.value is not None
        self.pointer: int = pointer.value
        self.nbytes = nbytes
        weakref.finalize(self, _quietly, cuda, "cuMemFree_v2", pointer)


@dataclass(frozen=True)
class Graph:
    """A recorded sequence of kernels."""

    cuda: Cuda
    handle: c_void_p

    def launch(self, stream: Stream) -> None:
        self.cuda("cuGraphLaunch", self.handle, stream.handle)


class Stream:
    """An order of execution; what is queued on it waits for what was queued before."""

    def __init__(self, cuda: Cuda) -> None:
        self.cuda, self.handle = cuda, c_void_p()
        cuda("cuStreamCreate", byref(self.handle), _NON_BLOCKING)
        weakref.finalize(self, _quietly, cuda, "cuStreamDestroy_v2", self.handle)

    def upload(self, buffer: int, host: int, nbytes: int) -> None:
        self._copy("cuMemcpyHtoDAsync_v2", buffer, host, nbytes)

    def download(self, host: int, buffer: int, nbytes: int) -> None:
        self._copy("cuMemcpyDtoHAsync_v2", host, buffer, nbytes)

    def copy(self, to: int, buffer: int, nbytes: int) -> None:
        self._copy("cuMemcpyDtoDAsync_v2", to, buffer, nbytes)

    def _copy(self, function: str, to: int, start: int, nbytes: int) -> None:
        self.cuda(function, c_void_p(to), c_void_p(start), c_size_t(nbytes), self.handle)

    def wait(self) -> None:
        """Until all that was queued is done."""
        self.cuda("cuStreamSynchronize", self.handle)

    def begin_recording(self) -> None:
        self.cuda("cuStreamBeginCapture_v2", self.handle, _THREAD_LOCAL)

    def end_recording(self) -> Graph:
        recorded, ready = c_void_p(), c_void_p()
        self.cuda("cuStreamEndCapture", self.handle, byref(recorded))
        try:
            self.cuda("cuGraphInstantiateWithFlags", byref(ready), recorded, ctypes.c_uint64(0))
        finally:
            _quietly(self.cuda, "cuGraphDestroy", recorded)
        graph = Graph(self.cuda, ready)
        weakref.finalize(graph, _quietly, self.cuda, "cuGraphExecDestroy", ready)
        return graph


def wait_for(cuda: Cuda, stream: int) -> None:
    """Until all is done that was queued on somebody else's stream, by its handle."""
    cuda("cuStreamSynchronize", c_void_p(stream))


def copy_on_gpu(cuda: Cuda, to: int, pointer: int, nbytes: int) -> None:
    """Copy memory of the GPU on the default stream, and wait until that is done."""
    with cuda.current():
        cuda("cuMemcpyDtoD_v2", c_void_p(to), c_void_p(pointer), c_size_t(nbytes))
        wait_for(cuda, _LEGACY)


def _quietly(cuda: Cuda, function: str, handle: c_void_p) -> None:
    """Give something back. By then the process may be ending, and the driver gone before."""
    try:
        with cuda.current():
            cuda(function, handle)
    except BackendError:
        pass
