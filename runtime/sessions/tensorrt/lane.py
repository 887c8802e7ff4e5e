"""What one call at a time uses to run an engine: an execution context, a stream, buffers."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import BackendError
from onnxplain.runtime.sessions.cuda_driver import Buffer, Cuda, Graph, Stream, wait_for
from onnxplain.runtime.sessions.tensorrt.engine import Engine, Shape
from onnxplain.runtime.sessions.tensorrt.source import Source


class DeviceArray:
    """A tensor on the GPU, which torch and CuPy take as it is (`__cuda_array_interface__`)."""

    def __init__(self, cuda: Cuda, shape: Shape, dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype = shape, dtype
        self._cuda = cuda
        self._buffer = Buffer(cuda, dtype.itemsize * math.prod(shape))

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self._buffer.pointer, False),
            "strides": None,
            "stream": None,  # what wrote it is done
            "version": 3,
        }

    @property
    def pointer(self) -> int:
        return self._buffer.pointer

    def numpy(self) -> NDArray[Any]:
        """A copy in the host's memory."""
        array = np.empty(self.shape, self.dtype)
        with self._cuda.current():
            stream = Stream(self._cuda)
            stream.download(array.ctypes.data, self.pointer, array.nbytes)
            stream.wait()
        return array


class Lane:
    """One engine's context, and the buffers that its inputs and outputs keep from call to call.

    Args:
        context: an execution context of the engine.
        record: replay the kernels of a shape that comes again as a CUDA graph. Not for
            `tensorrt_rtx`, which does so itself.
    """

    def __init__(self, cuda: Cuda, engine: Engine, context: Any, *, record: bool) -> None:
        self.stream = Stream(cuda)
        self._cuda, self._engine, self._context = cuda, engine, context
        self._dtypes = {
            name: np.dtype(port.dtype) for name, port in {**engine.inputs, **engine.outputs}.items()
        }
        self._record = record
        self._buffers: dict[str, Buffer] = {}
        self._given: dict[str, Shape] = {}
        self._shapes: dict[str, Shape] = {}
        self._runs = 0
        self._graph: Graph | None = None

    def fit(self, given: Mapping[str, Shape]) -> None:
        """Make room for inputs of these shapes, and for the outputs they lead to."""
        if given == self._given:
            return
        self._given, self._runs, self._graph = {}, 0, None
        for name, shape in given.items():
            self._must(self._context.set_input_shape(name, shape), f"refuses {shape} for '{name}'")
        self._shapes = dict(given)
        for name in self._engine.outputs:
            self._shapes[name] = tuple(self._context.get_tensor_shape(name))
        for name in self._shapes:
            nbytes = self._nbytes(name)
            if name not in self._buffers or self._buffers[name].nbytes < nbytes:
                self._buffers.pop(name, None)  # given back before the larger one is asked for
                self._buffers[name] = Buffer(self._cuda, nbytes)
                pointer = self._buffers[name].pointer
                self._must(self._context.set_tensor_address(name, pointer), f"refuses '{name}'")
        self._given = dict(given)

    def feed(self, inputs: Mapping[str, Source]) -> None:
        """Queue the copies of the inputs, which must live until `stream.wait()`."""
        for name, source in inputs.items():
            buffer, nbytes = self._buffers[name].pointer, self._nbytes(name)
            if not source.on_gpu:
                self.stream.upload(buffer, source.pointer, nbytes)
                continue
            if source.stream is not None:
                wait_for(self._cuda, source.stream)
            self.stream.copy(buffer, source.pointer, nbytes)

    def execute(self) -> None:
        """Queue one run. The first of a shape prepares itself, the second can be recorded."""
        if self._graph is None and self._record and self._runs == 1:
            self._graph = self._recorded()
        if self._graph is not None:
            self._graph.launch(self.stream)
        else:
            self._queue()
        self._runs += 1

    def carry(self, output: str, into: str) -> None:
        """Queue the copy of an output to an input of its size."""
        end, start = self._buffers[into].pointer, self._buffers[output].pointer
        self.stream.copy(end, start, self._nbytes(output))

    def fetch(self, name: str) -> NDArray[Any]:
        """Queue the copy of an output to the host."""
        array = np.empty(self._shapes[name], self._dtypes[name])
        self.stream.download(array.ctypes.data, self._buffers[name].pointer, array.nbytes)
        return array

    def hand_over(self, name: str) -> DeviceArray:
        """Queue the copy of an output to memory of its own: the lane's is overwritten."""
        array = DeviceArray(self._cuda, self._shapes[name], self._dtypes[name])
        self.stream.copy(array.pointer, self._buffers[name].pointer, self._nbytes(name))
        return array

    def _queue(self) -> None:
        self._must(self._context.execute_async_v3(self.stream.handle.value), "failed")

    def _recorded(self) -> Graph | None:
        """The run as a CUDA graph; None, and never again tried, where it cannot be one."""
        self._record = False
        self.stream.wait()
        self.stream.begin_recording()
        try:
            self._queue()
        except BackendError:
            with contextlib.suppress(BackendError):
                self.stream.end_recording()
            return None
        try:
            graph = self.stream.end_recording()
        except BackendError:
            return None
        self._record = True
        return graph

    def _nbytes(self, name: str) -> int:
        return self._dtypes[name].itemsize * math.prod(self._shapes[name])

    @staticmethod
    def _must(done: bool, what: str) -> None:
        if not done:
            raise BackendError(f"TensorRT {what}")
