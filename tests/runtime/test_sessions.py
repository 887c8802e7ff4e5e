"""Sessions of graphs that are no explain graphs, with state that goes from run to run."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from onnxplain.contract.explain import IMAGE, TARGET
from onnxplain.contract.precision import OperatorPrecision
from onnxplain.contract.steps import (
    FIRST_MOMENT,
    LEARNING_RATES,
    LOSSES,
    MAGNITUDE,
    MIRRORED,
    PRIORS,
    SECOND_MOMENT,
    SHIFTS,
    STEP,
    STEPS,
    StepMetadata,
    following,
)
from onnxplain.errors import BackendError, InputError
from onnxplain.runtime.cosines import cosines
from onnxplain.runtime.onnx_file import read_metadata, read_ports
from onnxplain.runtime.sessions import open_session
from onnxplain.runtime.sessions.cuda_driver import Cuda
from onnxplain.runtime.sessions.onnx_runtime.cuda import tensorrt_first
from onnxplain.runtime.sessions.tensorrt import Engine, TensorRT, compile_graph
from onnxplain.runtime.sessions.tensorrt.package import Package
from onnxplain.runtime.signature import Port
from onnxplain.vital.graphs.step import write_step
from onnxplain.vital.graphs.subject import read_subject

from .fake_gpu import FakeDriver, FakeTensorRT

PROVIDERS = ("cpu", "openvino")
CHANNELS, COUNT = 16, 37


@pytest.fixture(scope="module")
def accumulator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """total + x sorted, falling, along the last axis; how many runs; and the order."""
    nodes = [
        helper.make_node("TopK", ["x", "k"], ["values", "order"]),
        helper.make_node("Add", ["total", "values"], ["next_total"]),
        helper.make_node("Add", ["runs", "one"], ["next_runs"]),
    ]
    shape = ["batch", CHANNELS, COUNT]
    floats = dict.fromkeys(("x", "total", "next_total"), (TensorProto.FLOAT, shape))
    types = floats | {
        "order": (TensorProto.INT64, shape),
        "runs": (TensorProto.INT64, []),
        "next_runs": (TensorProto.INT64, []),
    }
    declared = {name: helper.make_tensor_value_info(name, *types[name]) for name in types}
    weights = [
        numpy_helper.from_array(np.array([COUNT]), "k"),
        numpy_helper.from_array(np.array(1), "one"),
    ]
    graph = helper.make_graph(
        nodes,
        "accumulator",
        [declared[name] for name in ("x", "total", "runs")],
        [declared[name] for name in ("next_total", "next_runs", "order")],
        weights,
    )
    path = tmp_path_factory.mktemp("graphs") / "accumulator.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, path)
    return path


def inputs(batch: int) -> dict[str, np.ndarray]:
    x = np.random.default_rng(batch).standard_normal((batch, CHANNELS, COUNT)).astype(np.float32)
    return {"x": x, "total": np.zeros_like(x), "runs": np.array(0)}


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("batch", [1, 4])
def test_a_run_sorts_and_says_in_which_order(accumulator: Path, provider: str, batch: int) -> None:
    graph = open_session(accumulator, provider)
    given = inputs(batch)
    found = graph.run(given)
    np.testing.assert_array_equal(found["next_total"], -np.sort(-given["x"]))
    taken = np.take_along_axis(given["x"], found["order"].astype(np.int64), -1)
    np.testing.assert_array_equal(taken, found["next_total"])


@pytest.mark.parametrize("provider", PROVIDERS)
def test_what_is_carried_is_the_next_run_s_input(accumulator: Path, provider: str) -> None:
    graph = open_session(accumulator, provider, sizes={"batch": 2})
    given = inputs(2)
    carried = {"next_total": "total", "next_runs": "runs"}
    found = graph.iterate(given, carried, 5, ["order"])
    np.testing.assert_allclose(found["next_total"], -5 * np.sort(-given["x"]), rtol=1e-6)
    assert found["next_runs"] == 5
    assert found["order"].shape == given["x"].shape
    again = graph.iterate(given, carried, 1)
    np.testing.assert_array_equal(again["next_total"], -np.sort(-given["x"]))
    assert again.keys() == carried.keys()


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_failed_run_is_an_error_of_ours_and_the_next_one_works(
    accumulator: Path, provider: str
) -> None:
    graph = open_session(accumulator, provider)
    with pytest.raises(BackendError):
        graph.run(inputs(2) | {"total": np.zeros((2, 5, COUNT), np.float32)})
    assert graph.run(inputs(3))["next_runs"] == 1


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_session_says_alike_what_it_cannot_iterate(accumulator: Path, provider: str) -> None:
    session = open_session(accumulator, provider)
    carried = {"next_total": "total"}
    for given, wrong, times, also, words in (
        (inputs(2), {"tea": "total"}, 1, (), "the graph has no output tea; its outputs are next_"),
        (inputs(2), {"next_total": "tea"}, 1, (), "has no input tea; its inputs are x, total, ru"),
        (inputs(2), carried, 1, ["tea"], "has no output tea"),
        (inputs(2), carried, 0, (), "at least once, not 0 times"),
        (inputs(2) | {"tea": np.array(0)}, carried, 1, (), "inputs are x, total, runs, not"),
        (inputs(2) | {"runs": [["a"], 2]}, carried, 1, (), "'runs' is no array of int64"),
    ):
        with pytest.raises(BackendError, match=words):
            session.iterate(given, wrong, times, also)
    with pytest.raises(InputError, match="times must be a whole number"):
        session.iterate(inputs(2), carried, 1.5)
    with pytest.raises(BackendError, match="inputs are x, total, runs, not x"):
        session.run({"x": inputs(2)["x"]})


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_session_takes_lists(accumulator: Path, provider: str) -> None:
    session, given = open_session(accumulator, provider), inputs(2)
    lists = {name: array.tolist() for name, array in given.items()}
    expected = session.run(given)["next_total"]
    np.testing.assert_array_equal(session.run(lists)["next_total"], expected)
    found = session.iterate(lists, {"next_total": "total"}, 1)["next_total"]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_what_progress_raises_is_the_callers_own(accumulator: Path, provider: str) -> None:
    def refuse(done: int) -> None:
        raise ValueError(f"enough after {done}")

    session = open_session(accumulator, provider)
    with pytest.raises(ValueError, match="enough after 1"):
        session.iterate(inputs(2), {"next_total": "total"}, 3, progress=refuse)
    assert session.run(inputs(2))["next_runs"] == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"provider": "abacus"}, "known: auto, cpu, openvino"),
        ({"provider": "cpu", "precision": "bfloat16"}, "in float32, float16, not in 'bfloat16'"),
        ({"provider": "openvino", "precision": "tf32"}, "float16, bfloat16, int8, not in 'tf32'"),
    ],
)
def test_what_cannot_be_opened_is_said(
    accumulator: Path, options: dict[str, str], words: str
) -> None:
    with pytest.raises(BackendError, match=words):
        open_session(accumulator, **options)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_file_that_is_missing_or_broken_is_said(tmp_path: Path, provider: str) -> None:
    with pytest.raises(BackendError, match="no such file"):
        open_session(tmp_path / "none.onnx", provider)
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    with pytest.raises(BackendError, match=r"broken\.onnx"):
        open_session(tmp_path / "broken.onnx", provider)


def test_tensorrt_is_not_given_sorts(
    accumulator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (name, options), (then, _) = tensorrt_first(accumulator, "tf32", 0, None)
    assert (name, then) == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
    assert "TopK" in options["trt_op_types_to_exclude"].split(",")
    assert "TensorrtExecutionProvider" in onnxruntime.get_available_providers()


@pytest.fixture(scope="module")
def step(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A step of a feature visualisation: a gradient and what Adam makes of it."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    subject = read_subject(network.eval(), example=torch.zeros(2, 3, 16, 16), layers=["0"])
    path = tmp_path_factory.mktemp("step") / "step.onnx"
    write_step(subject, path, objective="activation")
    return path


STEPS_DONE = 4
STATE = {
    following(name): name for name in (IMAGE, FIRST_MOMENT, SECOND_MOMENT, MAGNITUDE, STEP, LOSSES)
}
SIZES = {"batch": 2, STEPS: STEPS_DONE}


def start(seed: int) -> dict[str, np.ndarray]:
    """The inputs of the first step, of two pictures."""
    image = np.random.default_rng(seed).standard_normal((2, 3, 16, 16)).astype(np.float32)
    zeros = np.zeros_like(image)
    return {
        IMAGE: image,
        TARGET: np.array([seed % 4, 1]),
        FIRST_MOMENT: zeros,
        SECOND_MOMENT: zeros,
        MAGNITUDE: zeros,
        STEP: np.array(0),
        LOSSES: np.zeros((STEPS_DONE, 2), np.float32),
        LEARNING_RATES: np.full(STEPS_DONE, 0.1, np.float32),
        SHIFTS: np.array([[0, 1]] * STEPS_DONE),
        MIRRORED: np.array([0, 1] * (STEPS_DONE // 2)),
        PRIORS: np.full(3, 0.1, np.float32),
    }


def same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-3, atol=1e-5, err_msg=name)


def test_a_step_is_the_same_on_every_provider_and_carried_as_one_would_by_hand(step: Path) -> None:
    session = open_session(step, "cpu", sizes=SIZES)
    given = start(0)
    for _ in range(STEPS_DONE):
        by_hand = session.run(given)
        given |= {into: by_hand[output] for output, into in STATE.items()}
    expected = {output: by_hand[output] for output in STATE}
    for provider in PROVIDERS:
        seen: list[int] = []
        session = open_session(step, provider, sizes=SIZES)
        same(session.iterate(start(0), STATE, STEPS_DONE, progress=seen.append), expected)
        assert seen == [1, 2, 3, 4]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_several_callers_at_once_get_each_their_own(step: Path, provider: str) -> None:
    session = open_session(step, provider, threads=1, sizes=SIZES)
    alone = [session.iterate(start(seed), STATE, STEPS_DONE) for seed in range(4)]
    together = threading.Barrier(4)

    def call(seed: int) -> dict[str, np.ndarray]:
        together.wait(10)
        for _ in range(5):
            found = session.iterate(start(seed), STATE, STEPS_DONE)
        return found

    with ThreadPoolExecutor(4) as pool:
        for found, expected in zip(pool.map(call, range(4)), alone, strict=True):
            same(found, expected)


def test_what_openvino_compiled_of_a_step_is_kept_and_used_again(
    step: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    openvino = pytest.importorskip("openvino")
    expected = open_session(step, "openvino").iterate(start(0), STATE, STEPS_DONE)
    (blob,) = (cache / "onnxplain" / "openvino").iterdir()
    assert blob.stat().st_size > 0
    monkeypatch.setattr(openvino.Core, "compile_model", None)  # so that another one would fail
    found = open_session(step, "openvino").iterate(start(0), STATE, STEPS_DONE)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


def test_a_session_says_what_its_graph_takes_and_gives(step: Path) -> None:
    by_provider = [open_session(step, provider) for provider in PROVIDERS]
    for session in by_provider:
        assert session.inputs[IMAGE] == Port("float32", (None, 3, 16, 16))
        assert session.inputs[SHIFTS] == Port("int64", (None, 2))
        assert session.inputs[STEP] == Port("int64", ())
        assert session.outputs == by_provider[0].outputs
        assert StepMetadata.from_props(session.metadata).carried == STATE


def test_a_step_says_how_it_computes_in_halves_and_does(step: Path) -> None:
    said = OperatorPrecision.from_props(read_metadata(step))
    assert said is not None
    assert "Sqrt" in said.float32
    name = following(FIRST_MOMENT)
    half, right = (
        open_session(step, "cpu", precision=precision).iterate(start(0), {}, 1, [name])[name]
        for precision in ("float16", "float32")
    )
    assert cosines(half, right).min() > 0.999


def test_tensorrt_takes_the_same_steps(step: Path) -> None:
    """On a GPU and a compiler that are made up."""
    inputs, outputs = read_ports(step)
    shapes = {name: array.shape for name, array in start(0).items()}
    engine = Engine(
        provider="tensorrt",
        version=FakeTensorRT.__version__,
        sms=(89,),
        gpu="NVIDIA L4",
        system="",
        precision="float32",
        profile={name: (shape,) * 3 for name, shape in shapes.items() if shape},
        refittable=False,
        graph="0",
        metadata=read_metadata(step),
        inputs=inputs,
        outputs=outputs,
        payload=memoryview(step.read_bytes()),
    )
    driver = FakeDriver()
    package = Package("tensorrt", FakeTensorRT(driver), SimpleNamespace(words=[]))
    session = TensorRT(engine, package, Cuda(driver))
    seen: list[int] = []
    found = session.iterate(start(0), STATE, STEPS_DONE, progress=seen.append)
    same(found, open_session(step, "cpu").iterate(start(0), STATE, STEPS_DONE))
    assert seen == [1, 2, 3, 4]
    assert session.provider == "tensorrt"
    with pytest.raises(BackendError, match="no output 'logits'"):
        assert session.signature


def test_tensorrt_compiles_a_step_whose_sizes_are_known(step: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    engine = compile_graph(step, sm=[89], sizes=SIZES, keep=False)
    assert engine.inputs[IMAGE].shape == (2, 3, 16, 16)
    assert engine.inputs[LEARNING_RATES].shape == (STEPS_DONE,)
    assert StepMetadata.from_props(engine.metadata).carried == STATE


def test_tensorrt_that_sorts_no_more_says_what_does(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    count = 4000
    declared = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", count])
        for name in ("x", "values")
    ]
    graph = helper.make_graph(
        [helper.make_node("TopK", ["x", "k"], ["values", "order"])],
        "sorted",
        declared[:1],
        declared[1:],
        [numpy_helper.from_array(np.array([count]), "k")],
    )
    opsets = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "s.onnx")
    with pytest.raises(BackendError, match="use provider='cuda'"):
        compile_graph(tmp_path / "s.onnx", sm=[89], keep=False)
