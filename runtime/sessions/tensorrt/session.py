"""Running an engine on a GPU."""

from __future__ import annotations

import functools
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from onnxplain.contract.explain import IMAGE
from onnxplain.errors import BackendError
from onnxplain.files import scratch
from onnxplain.runtime.cache import cache_folder, hashed, load, save
from onnxplain.runtime.sessions.cuda_driver import Cuda, gpu
from onnxplain.runtime.sessions.protocol import check_iteration
from onnxplain.runtime.sessions.tensorrt.build import compile_graph, in_precision
from onnxplain.runtime.sessions.tensorrt.cache import KIND
from onnxplain.runtime.sessions.tensorrt.engine import Engine, read_engine
from onnxplain.runtime.sessions.tensorrt.lane import DeviceArray, Lane
from onnxplain.runtime.sessions.tensorrt.package import Package, load_package
from onnxplain.runtime.sessions.tensorrt.source import Source
from onnxplain.runtime.signature import Signature


def open_engine(path: Path) -> TensorRT:
    """Make an engine file ready to run.

    Raises:
        BackendError: not an engine file, a damaged one, one of another version, system or GPU; the
            package that built it is missing, or there is no GPU.
    """
    engine = read_engine(path)
    package = load_package(engine.provider)
    engine.check(package)
    return TensorRT(engine, package, gpu())


def compile_and_open(path: Path, provider: str, **options: Any) -> TensorRT:
    """Make a graph ready to run on the GPU here.

    Args:
        options: those of `compile_graph`.

    Raises:
        BackendError: the package is missing, there is no GPU, or the compiler refuses the graph.
    """
    package, cuda = load_package(provider), gpu()
    engine = compile_graph(path, provider=provider, sm=[cuda.sm], **options)
    return TensorRT(engine, package, cuda)


class TensorRT:
    """An engine on a GPU (a `Session`). Several threads may call it at once.

    Each call takes a lane (a context with its stream and buffers) that is idle, or makes one; so
    there are as many as there were callers at once. One in which a call failed is not used again.

    Raises:
        BackendError: the engine is not for this package or GPU, or the GPU has not enough memory.
    """

    def __init__(self, engine: Engine, package: Package, cuda: Cuda) -> None:
        engine.check(package, cuda)
        self.name = self.provider = engine.provider
        self.device = f"{cuda.name} (SM {cuda.sm})"
        self.precision = engine.precision
        self.metadata, self.inputs, self.outputs = engine.metadata, engine.inputs, engine.outputs
        self._package, self._cuda = package, cuda
        self._engine = replace(engine, payload=memoryview(b""))  # the GPU has it from here on
        self._runtime = package.trt.Runtime(package.logger)
        self._idle: deque[Lane] = deque()
        with cuda.current():
            self._compiled = self._runtime.deserialize_cuda_engine(engine.payload)
            if self._compiled is None:
                raise BackendError(f"{package.title} cannot load the engine: {package.said()}")
            self._kernels = self._kernel_cache() if package.ahead_of_time else None
            self._idle.append(self._new_lane())

    @functools.cached_property
    def signature(self) -> Signature:
        """With the numbers of images that the engine's profile allows."""
        signature = Signature.of(self.metadata, self.inputs, self.outputs)
        if IMAGE not in self._engine.profile:
            return signature
        (least, *_), _, (most, *_) = self._engine.profile[IMAGE]
        return replace(signature, least=least, most=most)

    def run(self, inputs: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        with self._fed(inputs) as lane:
            lane.execute()
            outputs = {name: lane.fetch(name) for name in self._engine.outputs}
            lane.stream.wait()
        return outputs

    def run_on_device(self, inputs: Mapping[str, Any]) -> dict[str, DeviceArray]:
        with self._fed(inputs) as lane:
            lane.execute()
            outputs = {name: lane.hand_over(name) for name in self._engine.outputs}
            lane.stream.wait()
        return outputs

    def iterate(
        self,
        inputs: Mapping[str, NDArray[Any]],
        carried: Mapping[str, str],
        times: int,
        also: Sequence[str] = (),
        progress: Callable[[int], None] | None = None,
    ) -> dict[str, NDArray[Any]]:
        check_iteration(self, carried, times, also)
        with self._fed(inputs) as lane:
            for run in range(times):
                if run:
                    for output, into in carried.items():
                        lane.carry(output, into)
                lane.execute()
                if progress:
                    lane.stream.wait()
                    progress(run + 1)
            last = {output: lane.fetch(output) for output in (*carried, *also)}
            lane.stream.wait()
        return last

    def refit(self, path: Path) -> None:
        """Take the weights of another explain graph, of the same network exported alike.

        Not while another thread runs the engine.

        Raises:
            BackendError: the engine was not built refittable, or the graph's weights don't fit.
        """
        if not self._engine.refittable:
            raise BackendError("the engine's weights are fixed; build it with refittable=True")
        trt, logger = self._package.trt, self._package.logger
        with self._cuda.current(), scratch() as folder:
            ready = in_precision(path, self.precision, folder)
            refitter = trt.Refitter(self._compiled, logger)
            parsed = trt.OnnxParserRefitter(refitter, logger).refit_from_file(str(ready))
            if not (parsed and refitter.refit_cuda_engine()):
                raise BackendError(f"the weights of '{path}' don't fit: {self._package.said()}")

    @contextmanager
    def _fed(self, inputs: Mapping[str, Any]) -> Iterator[Lane]:
        """A lane to which the inputs have been queued."""
        sources = {name: Source.of(tensor) for name, tensor in inputs.items()}
        self._check(sources)
        self._package.logger.words.clear()
        with self._cuda.current():
            try:
                lane = self._idle.pop()
            except IndexError:
                lane = self._new_lane()
            try:
                lane.fit({name: source.shape for name, source in sources.items()})
                lane.feed(sources)
                yield lane
            except BaseException as error:
                with suppress(BackendError):
                    lane.stream.wait()  # what is queued still reads and writes the caller's arrays
                if isinstance(error, BackendError) and self._package.logger.words:
                    raise BackendError(f"{error}: {self._package.said()}") from error
                raise
        self._idle.append(lane)

    def _check(self, sources: Mapping[str, Source]) -> None:
        if sources.keys() != self._engine.inputs.keys():
            raise BackendError(
                f"the engine's inputs are {', '.join(self._engine.inputs)}, not "
                f"{', '.join(sources)}"
            )
        for name, port in self._engine.inputs.items():
            shape, dtype = sources[name].shape, sources[name].dtype
            fixed = tuple(size or 0 for size in port.shape)
            least, _, most = self._engine.profile.get(name, (fixed,) * 3)
            within = len(shape) == len(most) and all(
                a <= size <= b for a, size, b in zip(least, shape, most, strict=True)
            )
            if dtype != port.dtype or not within:
                most_text = "" if least == most else f" to {list(most)}"
                raise BackendError(
                    f"'{name}' is {dtype} {list(shape)}; this engine takes {port.dtype} "
                    f"{list(least)}{most_text}. For other batches build one: "
                    "onnxplain build --batch SMALLEST,USUAL,LARGEST"
                )

    def _new_lane(self) -> Lane:
        if self._package.ahead_of_time:
            config = self._compiled.create_runtime_config()
            config.cuda_graph_strategy = self._package.trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            config.set_runtime_cache(self._kernels)
            context = self._compiled.create_execution_context(config)
        else:
            context = self._compiled.create_execution_context()
        if context is None:
            raise BackendError(
                f"{self._package.title} cannot make room for a run on {self.device}: "
                f"{self._package.said()} · build with smaller batches"
            )
        return Lane(self._cuda, self._engine, context, record=not self._package.ahead_of_time)

    def _kernel_cache(self) -> Any:
        """What `tensorrt_rtx` compiled on this GPU before, kept again when the process ends.

        One of another driver is for the package to find out; it then compiles anew.
        """
        kernels = self._compiled.create_runtime_config().create_runtime_cache()
        key = {"engine": self._engine.graph, "package": self._package.version}
        path = cache_folder(KIND) / f"{hashed(key | {'gpu': self.device})}.kernels"
        if known := load(path):
            kernels.deserialize(known)
        weakref.finalize(self, lambda: save(path, bytes(kernels.serialize())))
        return kernels
