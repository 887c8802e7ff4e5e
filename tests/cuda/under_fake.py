"""What ONNX Runtime's real CUDA provider and ours do, driven to the end of a run.

Run by `test_backend.py`, in a process that sees the fake CUDA: nothing here looks at results.
"""

from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from onnxplain.errors import BackendError
from onnxplain.export.lower import FOR_GPUS
from onnxplain.runtime import load

from .small import CLASSES, SIZE, explain_graph

CUDA = ctypes.CDLL(None)


def calls(name: str) -> int:
    return int(CUDA.fake_cuda_calls(name.encode()))


def counted(run: Callable[[], Any], *names: str) -> tuple[int, ...]:
    """How often `run` calls CUDA's functions; "kernel": how many kernels it launches."""
    before = [calls(name) for name in names]
    run()
    return tuple(calls(name) - b for name, b in zip(names, before, strict=True))


def images(batch: int = 1) -> np.ndarray:
    return np.zeros((batch, 3, SIZE, SIZE), np.float32)


def inputs(batch: int = 1) -> dict[str, np.ndarray]:
    return {"image": images(batch), "target": np.full(batch, -1)}


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return explain_graph(tmp_path_factory.mktemp("graph"))


@pytest.fixture(scope="module")
def explainer(graph: Path) -> Any:
    return load(graph, "cuda")


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    return lambda what: monkeypatch.setenv("FAKE_CUDA_FAIL", what)


def test_an_explanation_runs_on_the_gpu_as_a_whole(explainer: Any) -> None:
    assert explainer.backend.device == "Fake 0 (cuda:0)"
    (kernels,) = counted(lambda: explainer(images()), "kernel")
    assert kernels > 30
    assert explainer(images(3)).pullback.shape == (3, 3, SIZE, SIZE)
    assert explainer.backend._session.get_providers()[0] == "CUDAExecutionProvider"


def test_float16_runs_too(graph: Path) -> None:
    assert load(graph, "cuda", "float16")(images(2)).logits.shape == (2, CLASSES)


def test_outputs_stay_on_the_gpu(explainer: Any) -> None:
    outputs = explainer.backend.run_on_device(inputs())
    assert {value.device_name() for value in outputs.values()} == {"cuda"}


def test_values_on_the_gpu_are_read_where_they_lie(explainer: Any) -> None:
    on_gpu = {
        n: onnxruntime.OrtValue.ortvalue_from_numpy(x, "cuda", 0) for n, x in inputs().items()
    }
    backend = explainer.backend
    backend.run_on_device(on_gpu)
    assert counted(lambda: backend.run_on_device(on_gpu), "cudaMemcpy", "cudaMalloc") == (0, 0)


def lent(value: Any, stream: int | None = None, **more: Any) -> SimpleNamespace:
    """float32 values on the GPU, as a library shares them that has no DLPack."""
    interface = {"shape": value.shape(), "typestr": "<f4", "data": (value.data_ptr(), False)}
    return SimpleNamespace(__cuda_array_interface__=interface | {"stream": stream} | more)


@pytest.mark.parametrize(("stream", "waits"), [(None, 0), (7, 1)])
def test_an_array_of_another_library_is_waited_for(
    explainer: Any, stream: int | None, waits: int
) -> None:
    given = inputs()
    value = onnxruntime.OrtValue.ortvalue_from_numpy(given["image"], "cuda", 0)
    foreign = lent(value, stream)
    run = lambda: explainer.backend.run_on_device(given | {"image": foreign})  # noqa: E731
    driver = ("cuStreamSynchronize", "cuCtxPushCurrent_v2", "cuCtxPopCurrent_v2")
    assert counted(run, *driver) == (waits,) * 3


def test_steps_keep_the_image_on_the_gpu(tmp_path: Path) -> None:
    stepping = load(explain_graph(tmp_path, step=True), "cuda").backend
    given = inputs() | {"origin": images()}
    given |= {name: np.array(1.0, np.float32) for name in ("alpha", "eps", "limit")}

    def copies(steps: int) -> tuple[int, ...]:
        return counted(
            lambda: stepping.iterate(given, {"next_image": "image"}, steps), "cudaMemcpy"
        )

    copies(1)
    assert copies(2) == copies(9)


CAPTURE = ("cudaStreamBeginCapture", "cudaGraphInstantiate", "cudaGraphLaunch")


def test_each_shape_is_recorded_once_and_replayed_as_one_launch(graph: Path) -> None:
    recorded = load(graph, "cuda", cuda_graphs=True)
    for batch in (1, 2):
        run = lambda: recorded(images(batch))  # noqa: B023, E731
        assert counted(run, *CAPTURE) == (0, 0, 0)  # the first run of a shape allocates
        assert counted(run, *CAPTURE) == (1, 1, 1)
        assert counted(run, *CAPTURE, "cudaMalloc") == (0, 0, 1, 0)
    assert counted(lambda: recorded(images(1)), *CAPTURE) == (0, 0, 1)


def test_a_replay_copies_each_input_and_output_once(graph: Path) -> None:
    recorded = load(graph, "cuda", cuda_graphs=True).backend
    for _ in range(2):
        recorded.run(inputs())
    assert counted(lambda: recorded.run(inputs()), "cudaMemcpy") == (4,)


def test_a_recording_takes_no_input_of_another_dtype(graph: Path) -> None:
    """Nor reads past its end, as wider elements would have it."""
    recorded, given = load(graph, "cuda", cuda_graphs=True).backend, inputs(2)
    for _ in range(3):
        recorded.run(given)
    kept = next(iter(recorded._recordings.values())).inputs["target"]
    for wrong in ({"image": np.zeros((2, 3, SIZE, SIZE))}, {"target": np.array([1, 2], np.int32)}):
        with pytest.raises(BackendError, match=r"Unexpected input data type. Actual: .*expected"):
            recorded.run(given | wrong)
        on_gpu = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(x, "cuda", 0)
            for name, x in (given | wrong).items()
        }
        with pytest.raises(BackendError, match="Unexpected input data type"):
            recorded.run_on_device(on_gpu)
    assert kept.numpy().tolist() == [-1, -1]
    recorded.run(given | {"target": [3, 4]})
    assert kept.numpy().tolist() == [3, 4]
    assert len(recorded._recordings) == 1
    with pytest.raises(BackendError, match="the graph's inputs are image, target, not image"):
        recorded.run({"image": given["image"]})


def test_a_recording_reads_what_another_library_lends(graph: Path) -> None:
    recorded = load(graph, "cuda", cuda_graphs=True).backend
    for number in range(1, 4):
        value = onnxruntime.OrtValue.ortvalue_from_numpy(images() + number, "cuda", 0)
        given = [inputs() | {"image": lent(value, stream)} for stream in (None, 7)]
        waits = [
            counted(lambda: recorded.run_on_device(one), "cuStreamSynchronize")  # noqa: B023
            for one in given
        ]
        assert waits == [(1,), (2,)]  # for the copy, and for the stream
    (kept,) = recorded._recordings.values()
    assert np.all(kept.inputs["image"].numpy() == 3)
    with pytest.raises(BackendError, match="'image' must be contiguous on the GPU"):
        recorded.run_on_device(inputs() | {"image": lent(value, strides=(1, 2, 3, 4))})


def test_shapes_beyond_the_eighth_are_not_recorded(graph: Path) -> None:
    recorded = load(graph, "cuda", cuda_graphs=True)
    for batch in range(1, 11):
        for _ in range(2):
            recorded(images(batch))
    assert counted(lambda: recorded(images(8)), *CAPTURE) == (0, 0, 1)
    assert counted(lambda: recorded(images(9)), *CAPTURE) == (0, 0, 0)


def test_threads_take_turns_with_a_recording(graph: Path) -> None:
    recorded = load(graph, "cuda", cuda_graphs=True)
    for _ in range(2):
        recorded(images())
    threads = [threading.Thread(target=lambda: recorded(images())) for _ in range(8)]

    def together() -> None:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert counted(together, *CAPTURE) == (0, 0, 8)


def test_what_is_let_go_gives_back_its_memory_and_its_graphs(graph: Path) -> None:
    load(graph, "cuda")(images())  # what the process keeps for all sessions
    gc.collect()
    used = CUDA.fake_cuda_used()
    destroyed = calls("cudaGraphExecDestroy")
    recorded = load(graph, "cuda", cuda_graphs=True)
    for _ in range(3):
        recorded(images(64))
    assert CUDA.fake_cuda_used() > used
    del recorded
    gc.collect()
    assert CUDA.fake_cuda_used() == used
    assert calls("cudaGraphExecDestroy") == destroyed + 1


def test_a_node_on_the_processor_cannot_be_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(FOR_GPUS, "ConvTranspose")
    path = explain_graph(tmp_path)
    load(path, "cuda")(images())
    with pytest.raises(BackendError, match=r"a part of .* runs on the processor.*without cuda_gr"):
        load(path, "cuda", cuda_graphs=True)


def test_a_gpu_without_room_for_the_graph(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_CUDA_MEMORY", "1000")
    with pytest.raises(BackendError, match="not enough memory"):
        load(graph, "cuda")


def test_a_batch_too_large_leaves_smaller_ones_usable(
    graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = load(graph, "cuda")
    own(images(2))
    monkeypatch.setenv("FAKE_CUDA_MEMORY", str(CUDA.fake_cuda_used() + 4096))
    with pytest.raises(BackendError, match=r"not enough memory; run smaller batches"):
        own(images(64))
    assert own(images(2)).pullback.shape[0] == 2


def test_the_limit_of_the_memory_is_kept(graph: Path) -> None:
    limited = load(graph, "cuda", memory_limit=1 << 20)
    limited(images(2))
    with pytest.raises(BackendError, match="not enough memory"):
        limited(images(64))


def test_a_gpu_that_is_lost(graph: Path, fail: Callable[[str], None]) -> None:
    own = load(graph, "cuda")
    fail("*=719")
    with pytest.raises(BackendError, match=r"the GPU gave up.*start it again"):
        own(images())
    with pytest.raises(BackendError, match="the GPU gave up"):
        own.backend.run_on_device(inputs())
    with pytest.raises(BackendError, match="no NVIDIA GPU / driver found: CUDA's cuInit failed"):
        load(graph, "cuda")
    fail("")  # ONNX Runtime (1.31) crashes where it closes a session of a GPU that is lost


@pytest.mark.parametrize("what", ["cudnnBackendFinalize=3000", "cublasSgemm_v2=13"])
def test_what_the_gpu_cannot_do_is_not_done_on_the_processor(
    graph: Path, fail: Callable[[str], None], what: str
) -> None:
    own = load(graph, "cuda")
    fail(what)
    with pytest.raises(BackendError, match="ONNX Runtime failed"):
        own(images())
    assert own.backend._session.get_providers()[0] == "CUDAExecutionProvider"


def test_libraries_that_do_not_start(graph: Path, fail: Callable[[str], None]) -> None:
    for what in ("cudnnCreate=1001", "cublasCreate_v2=1", "cublasLtCreate=3"):
        fail(what)
        with pytest.raises(BackendError, match=r"cannot be opened on this GPU: .* failure"):
            load(graph, "cuda")


def test_what_asks_a_library_is_no_kernel() -> None:
    for name, kernels in {
        "cudnnConvolutionForward": 1,
        "cudnnBatchNormalizationForwardTraining": 1,
        "cudnnBatchNormalizationForwardInference": 1,
        "cublasLtMatmul": 1,
        "cudnnGetConvolutionForwardWorkspaceSize": 0,
        "cudnnFindConvolutionForwardAlgorithmEx": 0,
    }.items():
        assert counted(getattr(CUDA, name), name, "kernel") == (1, kernels)


def test_a_recording_that_fails_leaves_the_session_usable(
    graph: Path, fail: Callable[[str], None]
) -> None:
    recorded = load(graph, "cuda", cuda_graphs=True)
    recorded(images())
    for what in ("cudaGraphInstantiate=900", "cudaGraphLaunch=1"):
        fail(what)
        with pytest.raises(BackendError):
            recorded(images())
        fail("")
        assert recorded(images()).pullback.shape == (1, 3, SIZE, SIZE)


def test_a_gpu_by_its_number(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_CUDA_DEVICES", "2")
    second = load(graph, "cuda", device_id=1)
    assert second.backend.device == "Fake 1 (cuda:1)"
    assert second(images()).logits.shape == (1, CLASSES)
    with pytest.raises(BackendError, match="invalid device ordinal"):
        load(graph, "cuda", device_id=2)
