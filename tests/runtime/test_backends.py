"""Opening an explain graph, and what is said of a file that is none."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxplain.errors import BackendError, InputError
from onnxplain.runtime import open_backend
from onnxplain.runtime.onnx_file import read_ports


@pytest.mark.parametrize("provider", ["auto", "cpu"])
def test_a_backend_says_what_it_runs_on(graph_file, provider):
    backend = open_backend(graph_file(), provider)
    assert (backend.name, backend.device, backend.precision) == ("onnxruntime", "CPU", "float32")


def test_outputs_come_by_name(graph_file, tiny, x):
    outputs = open_backend(graph_file(), threads=1).run({"image": x, "target": np.array([0, 1, 2])})
    assert set(outputs) == {"logits", "pullback"}
    np.testing.assert_allclose(outputs["logits"], tiny.logits(x), rtol=1e-5)


@pytest.mark.parametrize(
    "variant",
    [{}, {"multi_target": True}, {"live_temperature": True}, {"batch": 2}, {"layout": "NHWC"}],
    ids=str,
)
def test_inputs_and_outputs_are_those_that_onnx_runtime_reads(graph_file, variant):
    path = graph_file(**variant)
    backend = open_backend(path, "cpu")
    assert read_ports(path) == (backend.inputs, backend.outputs)


def test_an_unknown_provider_is_answered_with_the_known_ones(graph_file):
    with pytest.raises(BackendError, match="unknown provider 'tpu'; known: auto, cpu"):
        open_backend(graph_file(), "tpu")


def test_threads_are_at_least_one(graph_file):
    with pytest.raises(BackendError, match="threads must be at least 1"):
        open_backend(graph_file(), threads=0)
    for threads in ("2", 1.5, True):
        with pytest.raises(InputError, match=f"threads must be a whole number, not {threads!r}"):
            open_backend(graph_file(), threads=threads)


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(BackendError, match="no such file"):
        open_backend(tmp_path / "none.onnx")


def test_a_file_that_is_not_onnx(tmp_path):
    path = tmp_path / "text.onnx"
    path.write_text("not a network")
    with pytest.raises(BackendError, match="not an ONNX file"):
        open_backend(path)


def test_an_empty_file(tmp_path):
    path = tmp_path / "empty.onnx"
    path.touch()
    with pytest.raises(BackendError):
        open_backend(path)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_truncated_onnx_file(graph_file, part):
    path = graph_file()
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(BackendError):
        open_backend(path)


def test_an_onnx_file_without_our_metadata(graph_file):
    path = graph_file()
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    with pytest.raises(BackendError, match="not an explain graph"):
        open_backend(path)


def test_our_metadata_on_a_graph_that_explains_nothing(graph_file):
    path = graph_file()
    model = onnx.load(path)
    del model.graph.output[1]
    onnx.save(model, path)
    with pytest.raises(BackendError, match="no output 'pullback'"):
        open_backend(path)


def test_our_metadata_on_a_graph_of_an_unknown_number_of_classes(graph_file):
    path = graph_file()
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    model.graph.input[0].type.tensor_type.ClearField("shape")
    onnx.save(model, path)
    with pytest.raises(BackendError, match="a known number of classes"):
        open_backend(path)


def test_a_failed_run_leaves_the_backend_usable(graph_file, x):
    backend = open_backend(graph_file())
    with pytest.raises(BackendError, match="ONNX Runtime failed"):
        backend.run({"image": x[:, :, :-1], "target": np.array([0, 1, 2])})
    assert len(backend.run({"image": x, "target": np.array([0, 1, 2])})["logits"]) == 3
