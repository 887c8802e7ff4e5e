"""Sessions of graphs that are no explain graphs, with state that goes from run to run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxplain.errors import BackendError
from onnxplain.runtime.sessions import open_session
from onnxplain.runtime.sessions.onnx_runtime.cuda import tensorrt_first

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
