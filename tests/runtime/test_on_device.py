"""Tensors of torch are explained where they lie, and come back as tensors of torch."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

from onnxplain.errors import BackendError, InputError
from onnxplain.runtime import load
from onnxplain.runtime.sessions import cuda_driver as driver
from onnxplain.runtime.sessions.onnx_runtime import cuda
from onnxplain.runtime.sessions.onnx_runtime.options import inference_session, session_options
from onnxplain.runtime.sessions.onnx_runtime.recorded import RecordedRuns

from .fake_gpu import FakeDriver

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_a_tensor_of_torch_gives_tensors_of_torch(graph_file, tiny, x, provider):
    if provider == "openvino":
        pytest.importorskip("openvino")
    explanation = load(graph_file(), provider)(torch.from_numpy(x), [0, 1, 2])
    assert isinstance(explanation.logits, torch.Tensor)
    assert explanation.pullback.shape == x.shape
    np.testing.assert_allclose(explanation.logits, tiny.logits(x), rtol=1e-5)
    expected = tiny.gradient(x, np.array([0, 1, 2]))
    np.testing.assert_allclose(explanation.pullback, expected, rtol=1e-5)


def test_what_an_explanation_of_a_tensor_lacks_that_of_a_list_has(explainer, x, tmp_path):
    images = torch.from_numpy(x)
    found = explainer(images)
    assert found.convergence_delta is None
    for name in ("save", "draw", "labels", "relevance_sum"):
        with pytest.raises(AttributeError, match=rf"no attribute '{name}'.*list\(images\)"):
            getattr(found, name)
    with pytest.raises(AttributeError, match=r"no attribute 'cow'$"):
        _ = found.cow
    explainer(list(images)).save(tmp_path / "why.png")
    assert (tmp_path / "why.png").exists()


@pytest.mark.parametrize("targets", [None, -1, torch.tensor([-1, -1, -1])], ids=str)
def test_targets_are_those_asked_for(explainer, x, targets):
    found = explainer(torch.from_numpy(x), targets)
    np.testing.assert_array_equal(found.targets, [-1, -1, -1])
    np.testing.assert_array_equal(found.pullback, explainer(x).pullback)


def test_a_channel_last_graph_keeps_the_layout_of_the_tensor(graph_file, tiny, x):
    explainer = load(graph_file(layout="NHWC"))
    images = torch.from_numpy(x).permute(0, 2, 3, 1)
    pullback = explainer(images, [0, 1, 2]).pullback
    expected = tiny.gradient(x, np.array([0, 1, 2]))
    np.testing.assert_allclose(pullback, expected.transpose(0, 2, 3, 1), rtol=1e-5)


def test_several_targets_and_a_live_temperature(graph_file, tiny, x):
    explainer = load(graph_file(multi_target=True, live_temperature=True))
    found = explainer(torch.from_numpy(x), [[0, 1], [2, 3], [4, 0]], temperature=2.0)
    assert found.pullback.shape == (3, 2, *x.shape[1:])
    expected = tiny.gradient(x, np.array([1, 3, 0])) / 2
    np.testing.assert_allclose(found.pullback[:, 1], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (torch.zeros(6, 8), r"the shape \['N', 3, 6, 8\], not \[6, 8\]"),
        (torch.zeros(0, 3, 6, 8), r"not \[0, 3, 6, 8\]"),
        (torch.zeros(1, 3, 6, 7), r"not \[1, 3, 6, 7\]"),
        (torch.zeros(1, 3, 6, 8, dtype=torch.float64), "holds float32, normalised, not float64"),
        (torch.zeros(1, 3, 6, 8, dtype=torch.uint8), "not uint8"),
        (torch.zeros(1, 3, 6, 8, requires_grad=True), "cannot be read"),
    ],
    ids=["rank", "none", "size", "float64", "uint8", "grad"],
)
def test_a_tensor_that_cannot_be_used(explainer, images, said):
    with pytest.raises(InputError, match=said):
        explainer(images)


def test_a_tensor_is_one_run(explainer, graph_file, x):
    with pytest.raises(InputError, match="split it for smaller batches"):
        explainer(torch.from_numpy(x), batch_size=1)
    with pytest.raises(InputError, match="exported for batches of 2, not of 3"):
        load(graph_file(batch=2))(torch.from_numpy(x))


class OnGpu:
    """A tensor that says it lies on a GPU."""

    def __init__(self, array):
        self.shape, self.dtype = array.shape, array.dtype

    def __len__(self):
        return len(self.shape)

    @property
    def __cuda_array_interface__(self):
        return {"shape": self.shape, "typestr": "<f4", "data": (0, False), "version": 3}


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_a_tensor_on_a_gpu_is_not_fetched_in_silence(graph_file, x, provider):
    if provider == "openvino":
        pytest.importorskip("openvino")
    with pytest.raises(BackendError, match=r"pass tensor\.cpu\(\)|provider='cuda'"):
        load(graph_file(), provider)(OnGpu(x))


def test_io_binding_takes_and_gives_memory_as_it_lies(graph_file, tiny, x):
    """On the CPU: the code is that for a GPU, with another device."""
    backend = load(graph_file(), "cpu").backend
    outputs = backend.run_on_device({"image": torch.from_numpy(x), "target": np.array([0, 1, 2])})
    assert isinstance(outputs["pullback"], onnxruntime.OrtValue)
    pullback = torch.from_dlpack(outputs["pullback"])
    assert pullback.data_ptr() == outputs["pullback"].data_ptr()
    del outputs
    expected = tiny.gradient(x, np.array([0, 1, 2]))
    np.testing.assert_allclose(pullback, expected, rtol=1e-5)


def test_a_producer_on_a_stream_of_its_own_is_told_which_one_reads(graph_file, x):
    told = []

    class OnSideStream:
        dtype = x.dtype

        def __dlpack_device__(self):
            return 2, 0

        def __dlpack__(self, stream=-1):  # as torch's: without a word, nothing is waited for
            told.append(stream)
            return torch.from_numpy(x).__dlpack__()

    value = load(graph_file(), "cpu").backend._value(OnSideStream())
    np.testing.assert_array_equal(value.numpy(), x)
    assert told == [1]


def test_a_backend_of_tensorrts_provider_bears_the_name_of_its_own_gpu(graph_file, monkeypatch):
    """What the provider cuda does is in tests/cuda."""
    library = FakeDriver("NVIDIA L4")
    library.names.append("NVIDIA A10")
    monkeypatch.setattr(driver, "_driver", lambda: library)
    monkeypatch.setattr(cuda, "missing_tensorrt", lambda: None)
    session = load(graph_file(), "cpu").backend._session
    monkeypatch.setattr(cuda, "_session", lambda *_: session)
    opened = cuda.open_tensorrt(graph_file(), "float16", device_id=1)
    assert opened.device == "NVIDIA A10 (cuda:1)"
    with pytest.raises(BackendError, match="invalid device ordinal"):
        cuda.open_tensorrt(graph_file(), "float16", device_id=2)


def test_what_is_not_contiguous_is_refused(graph_file, x):
    backend = load(graph_file(), "cpu").backend
    strided = torch.from_numpy(x).transpose(2, 3)
    with pytest.raises(BackendError, match="contiguous"):
        backend.run_on_device({"image": strided, "target": np.array([0, 1, 2])})


@pytest.fixture
def recorded(graph_file):
    """Recorded runs, on the processor, where ONNX Runtime records nothing but the rest is so."""
    session = inference_session(
        graph_file(), "float32", session_options(), ["CPUExecutionProvider"]
    )
    return RecordedRuns(session, "cpu", "float32")


def test_a_recording_reads_each_calls_inputs_and_gives_each_call_its_own_outputs(recorded, tiny, x):
    target = np.array([0, 1, 2])
    found = [recorded.run({"image": k * x, "target": target}) for k in (1, 2, 3)]
    assert len(recorded._recordings) == 1
    for k, outputs in enumerate(found, start=1):
        np.testing.assert_allclose(outputs["logits"], tiny.logits(k * x), rtol=1e-5)
        np.testing.assert_allclose(outputs["pullback"], tiny.gradient(k * x, target), rtol=1e-5)


def test_each_shape_has_a_recording_up_to_a_number(recorded, tiny):
    for batch in (*range(1, 12), *range(1, 12)):
        images = np.full((batch, 3, tiny.height, tiny.width), batch, np.float32)
        outputs = recorded.run({"image": images, "target": np.zeros(batch, np.int64)})
        np.testing.assert_allclose(outputs["logits"], tiny.logits(images), rtol=1e-5)
    assert len(recorded._recordings) == 8


def test_a_recording_can_be_run_between_the_steps_of_an_iteration(recorded, graph_file, x):
    given, carried = {"image": x, "target": np.array([0, 1, 2])}, {"pullback": "image"}
    seen = []

    def look(step):
        assert threading.current_thread() is caller  # or the session would wait for itself
        seen.append((step, recorded.run(given)["logits"]))

    caller = threading.current_thread()
    found = recorded.iterate(given, carried, 3, progress=look)
    plain = load(graph_file(), "cpu").backend
    np.testing.assert_array_equal(found["pullback"], plain.iterate(given, carried, 3)["pullback"])
    assert [step for step, _ in seen] == [1, 2, 3]
    for _, logits in seen:
        np.testing.assert_allclose(logits, plain.run(given)["logits"], rtol=1e-5)


def test_a_failed_run_leaves_the_recordings_usable(recorded, tiny, x):
    good = {"image": x, "target": np.array([0, 1, 2])}
    recorded.run(good)
    with pytest.raises(BackendError):
        recorded.run(good | {"target": np.array([0, 1])})
    np.testing.assert_allclose(recorded.run(good)["logits"], tiny.logits(x), rtol=1e-5)


def test_tensors_come_back_from_what_only_has_the_cuda_array_interface():
    """As the outputs of TensorRT do: the package's `as_tensor` or `asarray` takes them."""
    from onnxplain.runtime.inputs.tensors import like

    result = SimpleNamespace(__cuda_array_interface__={})
    package = SimpleNamespace(asarray=lambda thing: ("taken", thing))
    example = SimpleNamespace(__array_namespace__=lambda: package)
    assert like(result, example) == ("taken", result)
    package = SimpleNamespace()
    assert like(result, SimpleNamespace(__array_namespace__=lambda: package)) is result
