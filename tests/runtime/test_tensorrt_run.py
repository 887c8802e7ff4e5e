"""TensorRT: how an engine is run, on a GPU and a compiler that are made up (see `fake_gpu`)."""

from __future__ import annotations

import dataclasses
import gc
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from onnxplain.errors import BackendError, InputError
from onnxplain.runtime import Explainer, load
from onnxplain.runtime import cache as kept_files
from onnxplain.runtime.cache import cache_folder
from onnxplain.runtime.conversion.half import convert
from onnxplain.runtime.onnx_file import read_metadata
from onnxplain.runtime.sessions.cuda_driver import Cuda
from onnxplain.runtime.sessions.tensorrt import Engine, TensorRT
from onnxplain.runtime.sessions.tensorrt.package import Package
from onnxplain.runtime.signature import Port

from .fake_gpu import FakeDriver, FakeTensorRT

GraphFile = Callable[..., Path]
CARRIED = {"pullback": "image"}


class Logger:
    def __init__(self) -> None:
        self.words: list[str] = []


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return cache_folder("engines")


@pytest.fixture
def driver() -> FakeDriver:
    return FakeDriver()


@pytest.fixture
def trt(driver: FakeDriver) -> FakeTensorRT:
    return FakeTensorRT(driver)


def engine_of(graph: Path, most: int = 4, least: int = 1) -> Engine:
    size = (3, 6, 8)
    return Engine(
        provider="tensorrt",
        version=FakeTensorRT.__version__,
        sms=(89,),
        gpu="NVIDIA L4",
        system="",
        precision="float32",
        profile={
            "image": ((least, *size), (most, *size), (most, *size)),
            "target": ((least,), (most,), (most,)),
        },
        refittable=False,
        graph="0",
        metadata=read_metadata(graph),
        inputs={"image": Port("float32", (None, *size)), "target": Port("int64", (None,))},
        outputs={"logits": Port("float32", (None, 5)), "pullback": Port("float32", (None, *size))},
        payload=memoryview(graph.read_bytes()),
    )


@pytest.fixture
def engine(graph_file: GraphFile) -> Engine:
    return engine_of(graph_file())


@pytest.fixture
def backend(engine: Engine, trt: FakeTensorRT, driver: FakeDriver) -> TensorRT:
    return TensorRT(engine, Package("tensorrt", trt, Logger()), Cuda(driver))


def inputs(images: np.ndarray) -> dict[str, np.ndarray]:
    return {"image": images, "target": np.full(len(images), -1)}


def test_it_says_what_it_is(backend: TensorRT) -> None:
    assert (backend.name, backend.device) == ("tensorrt", "NVIDIA L4 (SM 89)")
    assert backend.precision == "float32"
    assert backend.signature.classes == 5


def test_its_explanations_are_onnx_runtimes(
    backend: TensorRT, explainer: Explainer, x: np.ndarray
) -> None:
    ours, theirs = Explainer(backend)(x), explainer(x)
    np.testing.assert_array_equal(ours.logits, theirs.logits)
    np.testing.assert_array_equal(ours.pullback, theirs.pullback)


def test_every_batch_size_of_the_profile_runs(
    backend: TensorRT, explainer: Explainer, x: np.ndarray
) -> None:
    for size in (1, 3, 2, 3, 3, 1, 1, 1):
        batch = inputs(x[:size])
        expected = explainer.backend.run(batch)
        for name, value in backend.run(batch).items():
            np.testing.assert_array_equal(value, expected[name])


def test_a_live_temperature_is_a_scalar(
    graph_file: GraphFile, trt: FakeTensorRT, driver: FakeDriver, x: np.ndarray
) -> None:
    graph = graph_file(live_temperature=True)
    engine = engine_of(graph)
    ports = {**engine.inputs, "temperature": Port("float32", ())}
    engine = dataclasses.replace(engine, inputs=ports)
    backend = TensorRT(engine, Package("tensorrt", trt, Logger()), Cuda(driver))
    found, expected = Explainer(backend)(x, temperature=0.7), load(graph, "cpu")(x, temperature=0.7)
    np.testing.assert_array_equal(found.pullback, expected.pullback)


def test_a_shape_that_comes_again_is_replayed_as_a_cuda_graph(
    backend: TensorRT, driver: FakeDriver, x: np.ndarray
) -> None:
    for _ in range(5):
        backend.run(inputs(x))
    assert driver.launches == 4  # the first run prepares the context
    backend.run(inputs(x[:1]))
    assert driver.launches == 4
    assert not driver.graphs  # the recording of the other shape was given back


def test_a_replay_reads_the_new_inputs(
    backend: TensorRT, explainer: Explainer, x: np.ndarray
) -> None:
    for k in (1.0, 2.0, 3.0):
        batch = inputs(k * x)
        expected = explainer.backend.run(batch)["pullback"]
        np.testing.assert_array_equal(backend.run(batch)["pullback"], expected)


def test_where_nothing_can_be_recorded_it_runs_all_the_same(
    backend: TensorRT, driver: FakeDriver, explainer: Explainer, x: np.ndarray
) -> None:
    driver.failing["cuStreamEndCapture"] = 700
    for _ in range(3):
        driver.recording = None
        result = backend.run(inputs(x))
    assert driver.launches == 0
    np.testing.assert_array_equal(result["logits"], explainer.backend.run(inputs(x))["logits"])


def test_rtx_is_asked_to_record_by_itself_and_keeps_what_it_compiled(
    graph_file: GraphFile, driver: FakeDriver, cache: Path, x: np.ndarray
) -> None:
    trt = FakeTensorRT(driver, ahead_of_time=True)
    for times in (1, 2):
        backend = TensorRT(engine_of(graph_file()), Package("", trt, Logger()), Cuda(driver))
        for _ in range(3):
            backend.run(inputs(x))
        assert driver.launches == 0
        del backend
        gc.collect()
        (kept,) = cache.glob("*.kernels")
        assert kept_files.load(kept) == b"kernel " * times


def test_damaged_kernels_of_rtx_are_never_handed_to_it(
    graph_file: GraphFile, driver: FakeDriver, cache: Path
) -> None:
    package = Package("", FakeTensorRT(driver, ahead_of_time=True), Logger())
    for damage in (b"", b"kernel ", b"\0" * 99):
        TensorRT(engine_of(graph_file()), package, Cuda(driver))
        gc.collect()
        (kept,) = cache.glob("*.kernels")
        kept.write_bytes(damage)
        with pytest.warns(UserWarning, match="is damaged, and made anew"):
            TensorRT(engine_of(graph_file()), package, Cuda(driver))
        gc.collect()
        assert kept_files.load(kept) == b"kernel "


def test_iterating_is_running_again_with_the_output_as_input(
    backend: TensorRT, x: np.ndarray
) -> None:
    batch, seen = inputs(x), []
    expected = x
    for _ in range(3):
        expected = backend.run({**batch, "image": expected})["pullback"]
    result = backend.iterate(batch, CARRIED, 3, progress=seen.append)
    np.testing.assert_array_equal(result["pullback"], expected)
    assert seen == [1, 2, 3]


def test_an_interrupted_iteration_leaves_it_usable(backend: TensorRT, x: np.ndarray) -> None:
    def interrupt(run: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backend.iterate(inputs(x), CARRIED, 3, progress=interrupt)
    assert len(backend.run(inputs(x))["logits"]) == 3


def test_tensors_on_the_gpu_stay_there(
    backend: TensorRT, explainer: Explainer, driver: FakeDriver, x: np.ndarray
) -> None:
    class OnDevice:
        __cuda_array_interface__ = {  # noqa: RUF012
            "shape": x.shape,
            "typestr": "<f4",
            "data": (x.ctypes.data, True),
            "strides": None,
            "stream": 7,
            "version": 3,
        }

    batch = inputs(x)
    expected = explainer.backend.run(batch)
    first = backend.run_on_device({**batch, "image": OnDevice()})
    assert 7 in driver.waited_for  # the producer's stream
    second = backend.run_on_device(inputs(2 * x))
    np.testing.assert_array_equal(first["pullback"].numpy(), expected["pullback"])
    np.testing.assert_array_equal(second["pullback"].numpy(), 2 * expected["pullback"])
    fed_back = backend.run({**batch, "image": first["pullback"]})
    assert fed_back["logits"].shape == (3, 5)


def test_a_strided_tensor_on_the_gpu_is_refused(backend: TensorRT, x: np.ndarray) -> None:
    class Strided:
        __cuda_array_interface__ = {  # noqa: RUF012
            "shape": x.shape,
            "typestr": "<f4",
            "data": (x.ctypes.data, True),
            "strides": (4, 8, 16, 32),
            "version": 2,
        }

    with pytest.raises(BackendError, match="must be contiguous"):
        backend.run({**inputs(x), "image": Strided()})


def test_a_batch_beyond_the_profile_is_refused_with_what_would_take_it(
    backend: TensorRT, x: np.ndarray
) -> None:
    with pytest.raises(BackendError, match=r"takes float32 \[1, 3, 6, 8\] to \[4, .* --batch"):
        backend.run(inputs(np.concatenate([x, x])))
    with pytest.raises(BackendError, match=r"'image' is float64 \[3"):
        backend.run(inputs(x.astype(float)))
    with pytest.raises(BackendError, match="the engine's inputs are image, target, not image"):
        backend.run({"image": x})
    assert len(backend.run(inputs(x))["logits"]) == 3


def test_a_thread_keeps_its_own_gpu_whatever_a_call_comes_to(
    engine: Engine, trt: FakeTensorRT, driver: FakeDriver, x: np.ndarray
) -> None:
    driver.stack.append(7)  # another GPU's context, of torch say
    backend = TensorRT(engine, Package("tensorrt", trt, Logger()), Cuda(driver))
    backend.run(inputs(x))
    backend.run_on_device(inputs(x))["logits"].numpy()
    backend.iterate(inputs(x), CARRIED, 2)
    assert driver.stack == [7]
    trt.fails = ["wrong"]
    with pytest.raises(BackendError, match="TensorRT failed: wrong"):
        backend.iterate(inputs(x[:1]), CARRIED, 2)
    driver.failing["cuMemcpyHtoDAsync_v2"] = 700
    with pytest.raises(BackendError, match="illegal address"):
        backend.run(inputs(x))
    driver.failing["cuCtxPushCurrent_v2"] = 700
    with pytest.raises(BackendError, match="illegal address"):
        backend.run(inputs(x))
    assert driver.stack == [7]
    driver.failing.clear()
    with pytest.raises(BackendError, match="cannot load the engine"):
        TensorRT(
            dataclasses.replace(engine, payload=memoryview(b"nonsense")),
            Package("tensorrt", trt, Logger()),
            Cuda(driver),
        )
    del backend
    gc.collect()
    assert driver.stack == [7]
    assert not driver.allocated


def test_a_producers_stream_is_told_who_reads_its_tensor(
    backend: TensorRT, explainer: Explainer, driver: FakeDriver, x: np.ndarray
) -> None:
    """torch's tensors have both interfaces, and only DLPack makes a stream wait for another."""
    torch = pytest.importorskip("torch")
    told: list[object] = []

    class OnSideStream:
        __cuda_array_interface__ = {  # noqa: RUF012
            "shape": x.shape,
            "typestr": "<f4",
            "data": (x.ctypes.data, True),
            "strides": None,
            "version": 2,
        }
        index = 0

        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, self.index

        def __dlpack__(self, stream: int | None = -1) -> object:
            told.append(stream)
            return torch.from_numpy(x).__dlpack__()

    found = backend.run({**inputs(x), "image": OnSideStream()})
    np.testing.assert_array_equal(found["logits"], explainer.backend.run(inputs(x))["logits"])
    assert told == [1]
    assert 1 in driver.waited_for
    OnSideStream.index = 1
    with pytest.raises(BackendError, match="lies on GPU 1, and the engine runs on GPU 0"):
        backend.run({**inputs(x), "image": OnSideStream()})


@pytest.mark.parametrize("profile", [(1, 4), (2, 4), (4, 4), (3, 64)])
def test_an_explainer_cuts_its_batches_to_the_profile_and_fills_them_up(
    graph_file: GraphFile,
    trt: FakeTensorRT,
    driver: FakeDriver,
    explainer: Explainer,
    profile: tuple[int, int],
) -> None:
    least, most = profile
    engine = engine_of(graph_file(), most, least)
    backend = TensorRT(engine, Package("tensorrt", trt, Logger()), Cuda(driver))
    images = np.random.default_rng(0).normal(size=(17, 3, 6, 8)).astype(np.float32)
    for count in (1, 5, 17):
        ours, theirs = Explainer(backend)(images[:count]), explainer(images[:count])
        np.testing.assert_array_equal(ours.logits, theirs.logits)
        np.testing.assert_array_equal(ours.pullback, theirs.pullback)


def test_a_batch_size_beyond_the_profile_is_refused_with_what_would_take_it(
    backend: TensorRT, x: np.ndarray
) -> None:
    with pytest.raises(InputError, match=r"takes batches of 4 at most, not of 5; build .* --batch"):
        Explainer(backend)(x, batch_size=5)
    assert len(Explainer(backend)(x, batch_size=1)) == 3


def test_after_a_failed_call_it_can_be_used(
    backend: TensorRT, trt: FakeTensorRT, driver: FakeDriver, x: np.ndarray
) -> None:
    backend.run(inputs(x))
    trt.fails = ["a kernel went wrong"]
    backend.run(inputs(x))  # it was being recorded: run plainly instead
    trt.fails = ["a kernel went wrong"]
    with pytest.raises(BackendError, match="TensorRT failed: a kernel went wrong"):
        backend.run(inputs(x))
    assert len(backend.run(inputs(x))["logits"]) == 3
    assert trt.contexts == 2  # the failed one was not used again


def test_too_little_memory_is_a_sentence_and_the_next_call_works(
    graph_file: GraphFile, trt: FakeTensorRT, driver: FakeDriver, x: np.ndarray
) -> None:
    backend = TensorRT(engine_of(graph_file()), Package("tensorrt", trt, Logger()), Cuda(driver))
    total, driver.left = driver.left, 2000
    with pytest.raises(BackendError, match="the GPU has not enough memory left; run smaller"):
        backend.run(inputs(x))
    driver.left += total - 2000
    assert len(backend.run(inputs(x))["logits"]) == 3


def test_memory_is_given_back(
    engine: Engine, trt: FakeTensorRT, driver: FakeDriver, x: np.ndarray
) -> None:
    backend = TensorRT(engine, Package("tensorrt", trt, Logger()), Cuda(driver))
    backend.run(inputs(x))
    before = driver.left
    for size in (1, 2, 3) * 20:
        backend.run(inputs(x[:size]))
        backend.run_on_device(inputs(x[:size]))
    gc.collect()
    assert driver.left == before
    del backend
    gc.collect()
    assert not driver.allocated
    assert not driver.streams
    assert not driver.graphs


def test_several_threads_have_a_lane_each(
    engine: Engine, trt: FakeTensorRT, driver: FakeDriver, explainer: Explainer, x: np.ndarray
) -> None:
    # Recording is per thread on a GPU; here there is one recorder for all.
    backend = TensorRT(engine, Package("tensorrt", trt, Logger()), Cuda(driver))
    driver.failing["cuStreamBeginCapture_v2"] = 0
    both, results = threading.Barrier(2), {}
    original = trt.fails

    class Meeting(list):
        def __bool__(self) -> bool:
            both.wait(10)
            return False

    trt.fails = Meeting()

    def call(k: int) -> None:
        results[k] = backend.run(inputs(k * x))["logits"]

    threads = [threading.Thread(target=call, args=(k,)) for k in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    trt.fails = original
    assert trt.contexts == 2
    for k in (1, 2):
        expected = explainer.backend.run(inputs(k * x))["logits"]
        np.testing.assert_array_equal(results[k], expected)


def test_an_engine_that_the_compiler_does_not_take_is_refused(
    graph_file: GraphFile, trt: FakeTensorRT, driver: FakeDriver
) -> None:
    engine = dataclasses.replace(engine_of(graph_file()), payload=memoryview(b"nonsense"))
    with pytest.raises(BackendError, match=r"TensorRT 11\.0\.0 cannot load the engine: bad engine"):
        TensorRT(engine, Package("tensorrt", trt, Logger()), Cuda(driver))


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_weights_are_refitted_in_the_engines_precision(
    graph_file: GraphFile, trt: FakeTensorRT, driver: FakeDriver, precision: str
) -> None:
    graph = graph_file()
    engine = dataclasses.replace(engine_of(graph), refittable=True, precision=precision)
    TensorRT(engine, Package("tensorrt", trt, Logger()), Cuda(driver)).refit(graph)
    (weights,) = trt.refitted
    assert weights == (graph.read_bytes() if precision == "float32" else convert(graph, precision))
    assert not driver.stack


def test_fixed_weights_are_not_refitted(backend: TensorRT, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="build it with refittable=True"):
        backend.refit(tmp_path / "other.onnx")


def test_an_explainer_takes_it_as_any_backend(
    backend: TensorRT, graph_file: GraphFile, x: np.ndarray
) -> None:
    ours = Explainer(backend)(list(x), batch_size=2, targets=[-1, -2, 0])
    theirs = load(graph_file())(list(x), targets=[-1, -2, 0])
    np.testing.assert_array_equal(ours.targets, theirs.targets)
    np.testing.assert_array_equal(ours.pullback, theirs.pullback)
