# ruff: noqa: N802, N815  (the names are CUDA's)
"""A GPU and a TensorRT package that are not there, for what runs between them.

The GPU's memory is the host's, its stream runs what is queued at once, except while it is recorded.
An engine is an ONNX file, which ONNX Runtime executes.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

_FAILURES = {
    2: b"out of memory",
    101: b"invalid device ordinal",
    100: b"no CUDA-capable device is detected",
    700: b"illegal address",
}


def number(value: Any) -> int:
    return int(getattr(value, "value", value) or 0)


class FakeDriver:
    """`libcuda`: its functions take what ctypes gives them, and return a status."""

    def __init__(self, name: str = "NVIDIA L4", sm: int = 89, memory: int = 1 << 30) -> None:
        self.names, self.sm, self.left = [name], sm, memory
        self.contexts = threading.local()  # of each thread, the stack of those that were pushed
        self.allocated: dict[int, Any] = {}
        self.streams: set[int] = set()
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.recording: list[Callable[[], None]] | None = None
        self.launches = 0
        self.waited_for: list[int] = []
        self.failing: dict[str, int] = {}
        self._handles = iter(range(16, 1 << 30))

    def __getattr__(self, function: str) -> Callable[..., int]:
        if not function.startswith("cu"):
            raise AttributeError(function)
        method = getattr(self, f"_{function}")

        def call(*arguments: Any) -> int:
            return self.failing.get(function) or method(*arguments) or 0

        return call

    def do(self, work: Callable[[], None]) -> None:
        if self.recording is not None:
            self.recording.append(work)
        else:
            work()

    def _cuInit(self, flags: int) -> None: ...

    @property
    def stack(self) -> list[int]:
        return self.contexts.__dict__.setdefault("stack", [])

    def _cuDeviceGetCount(self, count: Any) -> None:
        count._obj.value = len(self.names)

    def _cuDeviceGet(self, device: Any, index: int) -> int:
        device._obj.value = index
        return 0 if index < len(self.names) else 101

    def _cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> None:
        value._obj.value = self.sm // 10 if attribute == 75 else self.sm % 10

    def _cuDeviceGetName(self, text: Any, length: int, device: Any) -> None:
        text.value = self.names[number(device)].encode()

    def _cuDevicePrimaryCtxRetain(self, context: Any, device: Any) -> None:
        context._obj.value = 1 + number(device)

    def _cuCtxPushCurrent_v2(self, context: Any) -> None:
        self.stack.append(number(context))

    def _cuCtxPopCurrent_v2(self, context: Any) -> None:
        context._obj.value = self.stack.pop()

    def _cuGetErrorString(self, status: int, words: Any) -> None:
        words._obj.value = _FAILURES[status]

    def _cuMemAlloc_v2(self, pointer: Any, size: Any) -> int:
        assert self.stack[-1] == 1
        if number(size) > self.left:
            return 2
        self.left -= number(size)
        memory = ctypes.create_string_buffer(number(size))
        pointer._obj.value = ctypes.addressof(memory)
        self.allocated[ctypes.addressof(memory)] = memory
        return 0

    def _cuMemFree_v2(self, pointer: Any) -> None:
        self.left += len(self.allocated.pop(number(pointer)))

    def _copy(self, to: Any, start: Any, size: Any, stream: Any) -> None:
        to, start, size = number(to), number(start), number(size)
        self.do(lambda: ctypes.memmove(to, start, size) and None)

    _cuMemcpyHtoDAsync_v2 = _cuMemcpyDtoHAsync_v2 = _cuMemcpyDtoDAsync_v2 = _copy

    def _cuStreamCreate(self, stream: Any, flags: int) -> None:
        stream._obj.value = next(self._handles)
        self.streams.add(stream._obj.value)

    def _cuStreamDestroy_v2(self, stream: Any) -> None:
        self.streams.remove(number(stream))

    def _cuStreamSynchronize(self, stream: Any) -> None:
        self.waited_for.append(number(stream))

    def _cuStreamBeginCapture_v2(self, stream: Any, mode: int) -> None:
        self.recording = []

    def _cuStreamEndCapture(self, stream: Any, graph: Any) -> None:
        graph._obj.value = next(self._handles)
        self.graphs[graph._obj.value], self.recording = self.recording, None

    def _cuGraphInstantiateWithFlags(self, ready: Any, graph: Any, flags: Any) -> None:
        ready._obj.value = next(self._handles)
        self.graphs[ready._obj.value] = self.graphs[number(graph)]

    def _cuGraphLaunch(self, ready: Any, stream: Any) -> None:
        self.launches += 1
        for work in self.graphs[number(ready)]:
            work()

    def _cuGraphDestroy(self, graph: Any) -> None:
        del self.graphs[number(graph)]

    _cuGraphExecDestroy = _cuGraphDestroy


class FakeTensorRT:
    """The module, as far as running goes; `ahead_of_time` makes it the `tensorrt_rtx` kind."""

    __version__ = "11.0.0"

    def __init__(self, driver: FakeDriver, ahead_of_time: bool = False) -> None:
        self.driver = driver
        self.executions = 0
        self.contexts = 0
        self.fails: list[str] = []  # what the next executions say as they fail
        self.logger: Any = None
        self.refitted: list[bytes] = []  # the files whose weights an engine took
        if ahead_of_time:
            self.ComputeCapability = type("ComputeCapability", (), {"__members__": {"SM89": 0}})
            self.CudaGraphStrategy = type("CudaGraphStrategy", (), {"WHOLE_GRAPH_CAPTURE": 1})

    def Refitter(self, engine: FakeEngine, logger: Any) -> FakeRefitter:
        return FakeRefitter(self)

    def OnnxParserRefitter(self, refitter: FakeRefitter, logger: Any) -> FakeRefitter:
        return refitter

    def Runtime(self, logger: Any) -> FakeRuntime:
        self.logger = logger
        return FakeRuntime(self)


class FakeRefitter:
    """And its parser."""

    def __init__(self, trt: FakeTensorRT) -> None:
        self.trt = trt

    def refit_from_file(self, path: str) -> bool:
        self.trt.refitted.append(Path(path).read_bytes())
        return True

    def refit_cuda_engine(self) -> bool:
        return True


class FakeRuntime:
    def __init__(self, trt: FakeTensorRT) -> None:
        self.trt = trt

    def deserialize_cuda_engine(self, payload: memoryview) -> FakeEngine | None:
        try:
            return FakeEngine(self.trt, bytes(payload))
        except Exception as error:
            self.trt.logger.words.append(f"bad engine: {type(error).__name__}")
            return None


class FakeEngine:
    def __init__(self, trt: FakeTensorRT, payload: bytes) -> None:
        self.trt = trt
        self.session = onnxruntime.InferenceSession(payload, providers=["CPUExecutionProvider"])

    def create_runtime_config(self) -> FakeConfig:
        return FakeConfig()

    def create_execution_context(self, config: Any = None) -> FakeContext:
        assert (config is not None) == hasattr(self.trt, "ComputeCapability")
        self.trt.contexts += 1
        return FakeContext(self)


class FakeConfig:
    cuda_graph_strategy = 0
    kernels: Any = None

    def create_runtime_cache(self) -> FakeKernels:
        return FakeKernels()

    def set_runtime_cache(self, kernels: Any) -> None:
        self.kernels = kernels


class FakeKernels:
    known = b""

    def deserialize(self, data: bytes) -> None:
        self.known = data

    def serialize(self) -> bytes:
        return self.known + b"kernel "


class FakeContext:
    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.dtypes = {
            node.name: np.dtype({"tensor(int64)": "int64"}.get(node.type, "float32"))
            for node in (*engine.session.get_inputs(), *engine.session.get_outputs())
        }

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        session = self.engine.session
        sizes = {
            dimension: size
            for node in session.get_inputs()
            for dimension, size in zip(node.shape, self.shapes[node.name], strict=True)
        }
        (node,) = (n for n in session.get_outputs() if n.name == name)
        return tuple(sizes.get(dimension, dimension) for dimension in node.shape)

    def set_tensor_address(self, name: str, pointer: int) -> bool:
        self.addresses[name] = pointer
        return True

    def execute_async_v3(self, stream: int) -> bool:
        trt = self.engine.trt
        assert stream in trt.driver.streams
        assert trt.driver.stack[-1] == 1
        if trt.fails:
            trt.logger.words.append(trt.fails.pop(0))
            return False
        addresses, shapes = dict(self.addresses), dict(self.shapes)
        trt.driver.do(lambda: self._execute(addresses, shapes))
        return True

    def _execute(self, addresses: dict[str, int], shapes: dict[str, tuple[int, ...]]) -> None:
        self.engine.trt.executions += 1
        session = self.engine.session
        inputs = {
            node.name: self._view(addresses, node.name, shapes[node.name])
            for node in session.get_inputs()
        }
        names = [node.name for node in session.get_outputs()]
        for name, array in zip(names, session.run(names, inputs), strict=True):
            self._view(addresses, name, array.shape)[...] = array

    def _view(self, addresses: dict[str, int], name: str, shape: tuple[int, ...]) -> np.ndarray:
        dtype = self.dtypes[name]
        size = int(np.prod(shape)) * dtype.itemsize
        memory = (ctypes.c_char * size).from_address(addresses[name])
        return np.frombuffer(memory, dtype).reshape(shape)
