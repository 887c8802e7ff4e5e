"""OpenVINO-XAI in an interpreter of its own: how it is asked, and what was measured of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxplain.bench.rivals import environments
from onnxplain.bench.rivals.__main__ import RESULTS
from onnxplain.bench.rivals.environments import interpreter
from onnxplain.bench.rivals.maps import LAYERS, METHODS, OURS, SCRIPT, THEIRS
from onnxplain.bench.rivals.worker import working

pytest.importorskip("openvino")

STUB = '''
from enum import Enum
import openvino.opset13 as ops
from openvino import Model

Task = Enum("Task", ["CLASSIFICATION"])
Method = Enum("Method", ["RECIPROCAM", "ACTIVATIONMAP"])

def insert_xai(model, task, explain_method, target_layer):
    """With the mean over the channels as the map."""
    (op,) = [op for op in model.get_ordered_ops() if op.get_friendly_name() == target_layer]
    mean = ops.reduce_mean(op.output(0), [1], False)
    assert (task, explain_method) == (Task.CLASSIFICATION, Method.ACTIVATIONMAP)
    return Model([*(out.get_node().input_value(0) for out in model.outputs), mean.output(0)],
                 model.get_parameters())
'''


def _network(path: Path) -> np.ndarray:
    """A convolution of one weight per pair of channels, its map `features` and their means."""
    weight = np.random.default_rng(0).normal(size=(4, 3, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["features"]),
        helper.make_node("GlobalAveragePool", ["features"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["y"]),
    ]
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", [1, 3, 5, 6]), ("y", [1, 4]))
    )
    graph = helper.make_graph(nodes, "maps", [x], [y], [numpy_helper.from_array(weight, "w")])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return weight


def test_each_call_is_timed_and_the_maps_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stub").mkdir()
    (tmp_path / "stub/openvino_xai.py").write_text(STUB)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "stub"))
    weight = _network(tmp_path / "network.onnx")
    image = np.random.default_rng(1).normal(size=(1, 3, 5, 6)).astype(np.float32)
    np.save(tmp_path / "image.npy", image)
    paths = {"network": "network.onnx", "image": "image.npy", "maps": "maps.npz"}
    calls = {"forward": None, "map": ("ACTIVATIONMAP", "features")}
    job = tmp_path / "job.json"
    given = {key: str(tmp_path / name) for key, name in paths.items()}
    job.write_text(json.dumps({**given, "threads": 1, "calls": calls}))
    with working(Path(sys.executable), SCRIPT, job) as worker:
        for name in ("forward", "map", "map"):
            worker(name)
    assert worker.runtime.count(".") >= 2
    assert [len(worker.seconds[name]) for name in calls] == [1, 2]
    assert min(min(samples) for samples in worker.seconds.values()) > 0
    expected = np.einsum("oc,nchw->nohw", weight[:, :, 0, 0], image).mean(1)
    with np.load(tmp_path / "maps.npz") as maps:
        assert [*maps] == ["map"]
        np.testing.assert_allclose(maps["map"], expected, rtol=1e-5, atol=1e-6)


def test_a_script_that_ends_says_why(tmp_path: Path) -> None:
    script, job = tmp_path / "script.py", tmp_path / "job.json"
    script.write_text("raise SystemExit('the layer is unknown')")
    with (
        pytest.raises(RuntimeError, match="the layer is unknown"),
        working(Path(sys.executable), script, job),
    ):
        pass


def test_an_environment_that_is_there_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "cache_folder", lambda name: tmp_path / name)
    made = tmp_path / "rivals/onnx-0/bin/python"
    made.parent.mkdir(parents=True)
    made.write_text("#!/bin/sh\n")  # whatever it is asked, it says yes
    made.chmod(0o755)
    assert interpreter("onnx", "0") == made
    assert made.read_text() == "#!/bin/sh\n"


def test_the_committed_maps_are_those_that_are_declared() -> None:
    found = json.loads(RESULTS.read_text())["maps"]
    expected = [
        (by, method, side)
        for side in LAYERS
        for by, method in [(OURS, "Grad-CAM"), *((THEIRS, method) for method in METHODS)]
    ]
    assert [(row["by"], row["method"], row["side"]) for row in found["rows"]] == expected
    assert found["rounds"] >= 15
    last = {row["method"]: row for row in found["rows"] if row["side"] == min(LAYERS)}
    # Behind the last features is a mean alone, where Recipro-CAM is Grad-CAM but for a constant.
    assert last["Recipro-CAM"]["correlation"] > 0.999
