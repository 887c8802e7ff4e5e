"""Choosing a provider and a precision: what is taken, what is refused, and what is said then."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

from onnxplain.errors import BackendError, InputError
from onnxplain.runtime import load, loading, sessions
from onnxplain.runtime.sessions import AUTO, PROVIDERS, Provider, preferred
from onnxplain.runtime.sessions import providers as table_of
from onnxplain.runtime.sessions.onnx_runtime import cuda
from onnxplain.runtime.sessions.onnx_runtime import options as ort
from onnxplain.runtime.sessions.onnx_runtime import session as onnx_runtime
from onnxplain.runtime.verification import agreement


def without_gpu() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return True
    return False


@pytest.mark.skipif(not without_gpu(), reason="there is a GPU")
@pytest.mark.parametrize("provider", ["cuda", "ort-tensorrt", "tensorrt-rtx"])
def test_without_a_gpu_its_providers_say_so(graph_file, provider):
    with pytest.raises(BackendError, match="no NVIDIA GPU / driver found: libcuda"):
        load(graph_file(), provider, "tf32")


def test_a_library_that_is_missing_is_named_with_what_brings_it(graph_file, monkeypatch):
    monkeypatch.setattr(cuda, "gpu", lambda *_: SimpleNamespace(name="a GPU"))
    if cuda._cannot_load("CUDAExecutionProvider") is None:
        pytest.skip("nothing is missing here")
    with pytest.raises(BackendError, match=r"a library that is missing .*onnxplain\[cuda\]"):
        load(graph_file(), "cuda")


def test_an_onnx_runtime_without_cuda_is_said_to_be_one(graph_file, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    for provider in ("cuda", "ort-tensorrt"):
        with pytest.raises(BackendError, match="ONNX Runtime has no CUDAExecutionProvider: pip"):
            load(graph_file(), provider, "tf32")


def test_a_provider_that_silently_fell_back_to_the_processor_is_refused(graph_file, monkeypatch):
    monkeypatch.setattr(cuda, "missing_cuda", lambda: None)
    monkeypatch.setattr(cuda, "gpu", lambda *_: SimpleNamespace(name="a GPU"))
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has no CUDA provider to fall back from")
    if without_gpu():
        with pytest.raises(BackendError, match="CUDAExecutionProvider could not start"):
            load(graph_file(), "cuda")


def test_the_arena_on_a_gpu_grows_by_what_is_asked_for_and_not_beyond_its_limit():
    options = ort.cuda_options("float32", 1, False, 1 << 30)
    assert options["arena_extend_strategy"] == "kSameAsRequested"
    assert options["gpu_mem_limit"] == str(1 << 30)
    assert options["device_id"] == "1"
    assert "gpu_mem_limit" not in ort.cuda_options("float32", 0, False, None)


@pytest.mark.parametrize(("precision", "flag"), [("float32", "0"), ("tf32", "1"), ("float16", "0")])
def test_tf32_only_where_it_is_asked_for(precision, flag):
    assert ort.cuda_options(precision, 0, False, None)["use_tf32"] == flag


def test_engines_and_timings_are_kept_in_the_cache(tmp_path):
    options = ort.tensorrt_options(tmp_path / "graph" / "float16", 0)
    assert options["trt_engine_cache_path"] == str(tmp_path / "graph" / "float16")
    assert options["trt_engine_cache_enable"] == options["trt_timing_cache_enable"] == "1"
    assert (tmp_path / "graph" / "float16").is_dir()


def test_a_precision_that_a_provider_has_not(graph_file):
    with pytest.raises(BackendError, match="cpu computes in float32, float16, not in 'bfloat16'"):
        load(graph_file(), "cpu", "bfloat16")
    with pytest.raises(BackendError, match="cuda computes in float32, tf32, float16, not in 'in"):
        load(graph_file(), "cuda", "int8")


def test_an_option_that_a_provider_has_not(graph_file):
    with pytest.raises(BackendError, match="openvino has no option 'speed'; it has device, hint"):
        load(graph_file(), "openvino", speed=1)
    with pytest.raises(BackendError, match=r"the provider cpu has no option 'hint'$"):
        load(graph_file(), "cpu", hint="latency")
    with pytest.raises(BackendError, match="name the provider instead of 'auto'"):
        load(graph_file(), hint="latency")


def test_half_precision_needs_what_converts_the_graph(graph_file, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxplain.runtime.conversion.half", None)
    with pytest.raises(BackendError, match=r'pip install "onnxplain\[export\]"'):
        load(graph_file(), "cpu", "float16")


def test_a_tensor_or_session_out_of_memory_is_said_to_be(graph_file, x, monkeypatch):
    explainer = load(graph_file(), "cpu")

    def full(*_: object) -> None:
        raise RuntimeError("BFCArena::AllocateRawInternal Failed to allocate memory for 8 bytes")

    session = SimpleNamespace(run=full)
    monkeypatch.setattr(explainer.backend, "_session", session)
    with pytest.raises(BackendError, match="not enough memory; run smaller batches"):
        explainer(x)


class Wrong(onnx_runtime.OnnxRuntime):
    """A backend whose pullback is another's."""

    name = "wrong"

    def run(self, inputs):
        outputs = super().run(inputs)
        return outputs | {"pullback": outputs["pullback"][..., ::-1].copy()}


def open_wrong(path, precision, threads=None, sizes=None):
    session = ort.inference_session(
        path, "float32", ort.session_options(threads), ["CPUExecutionProvider"]
    )
    return Wrong(session, "wrong", precision)


@pytest.fixture
def providers(monkeypatch):
    """A table of providers that tests may put their own into."""
    table = dict(PROVIDERS)
    for module in (sessions, table_of, loading):
        monkeypatch.setattr(module, "PROVIDERS", table)
    return table


def test_auto_takes_the_processor_where_there_is_no_gpu(graph_file, providers):
    for name in ("tensorrt", "cuda"):
        providers[name] = Provider(open_wrong, lambda: "no GPU", ("float32",), ())
    assert list(preferred("float32")) == ["cpu"]
    assert load(graph_file()).backend.name == "onnxruntime"


def test_auto_goes_past_a_backend_that_is_wrong(graph_file, providers, tiny, x):
    providers["cuda"] = Provider(open_wrong, lambda: None, ("float32",), ())
    assert "cuda" in preferred("float32")
    explainer = load(graph_file())
    assert explainer.backend.name == "onnxruntime"
    np.testing.assert_allclose(explainer(x).pullback, tiny.gradient(x, explainer(x).targets), 1e-5)


def test_auto_takes_the_first_that_is_here_and_right(graph_file, providers):
    class Gpu(onnx_runtime.OnnxRuntime):
        name = "gpu"

    def open_gpu(path, precision, threads=None, sizes=None):
        return Gpu(open_wrong(path, precision, threads)._session, "gpu", precision)

    providers["tensorrt"] = Provider(open_wrong, lambda: None, ("float32",), ())
    providers["cuda"] = Provider(open_gpu, lambda: None, ("float32",), ())
    assert load(graph_file()).backend.name == "gpu"


def test_auto_in_a_precision_that_nothing_here_has(graph_file, providers):
    for name in AUTO:
        providers[name] = Provider(open_wrong, lambda: None, ("float32",), ())
    with pytest.raises(BackendError, match="nothing here explains this graph in bfloat16"):
        load(graph_file(), precision="bfloat16")


def test_verification_refuses_a_wrong_backend_with_the_figure(graph_file, providers):
    providers["openvino"] = Provider(open_wrong, lambda: None, ("float32", "bfloat16"), ())
    assert load(graph_file(), "openvino").backend.name == "wrong"
    for precision in ("float32", "bfloat16"):
        with pytest.raises(BackendError, match=r"the cosine of its pullback .* is -?0\.\d+ on 2 i"):
            load(graph_file(), "openvino", precision, verify=True)


def test_verification_passes_the_right_ones_on_noise_and_on_images(graph_file, x):
    load(graph_file(), "cpu", verify=True)
    load(graph_file(batch=3), "cpu", verify=True)
    load(graph_file(multi_target=True, live_temperature=True), "cpu", verify=True)
    load(graph_file(layout="NHWC"), "cpu", verify=True)
    load(graph_file(), "cpu", verify=True, images=[x])


def test_the_bound_of_a_verification_can_be_set(graph_file, providers):
    providers["openvino"] = Provider(open_wrong, lambda: None, ("float32",), ())
    load(graph_file(), "openvino", verify=True, at_least=-1)


def test_precision_auto_compares_on_images_of_the_users(graph_file):
    with pytest.raises(InputError, match="give some"):
        load(graph_file(), precision="auto")


def test_precision_auto_takes_no_precision_that_is_too_far_off(graph_file, providers, x):
    for name in ("tensorrt", "cuda"):
        providers[name] = Provider(open_wrong, lambda: "not here", ("float32",), ())
    providers["openvino"] = Provider(open_wrong, lambda: None, ("bfloat16",), ())
    explainer, trials = loading.fastest(graph_file(), [x])
    assert (explainer.backend.name, explainer.backend.precision) == ("onnxruntime", "float32")
    refused, taken = trials
    assert (refused.provider, refused.precision) == ("openvino", "bfloat16")
    assert refused.cosine < 0.99
    assert refused.seconds == float("inf")
    assert taken.cosine == pytest.approx(1)
    assert 0 < taken.seconds < 10


def test_precision_auto_takes_the_fastest_that_agrees(graph_file, providers, x, monkeypatch):
    providers["openvino"] = Provider(
        onnx_runtime.open_cpu, lambda: None, ("float32", "float16", "bfloat16"), ()
    )
    seconds = {"float32": 3.0, "float16": 1.0, "bfloat16": 2.0}
    monkeypatch.setattr(
        loading, "median_seconds", lambda call, _: seconds[call.func.__self__.backend.precision]
    )
    monkeypatch.setattr(ort, "converted", lambda path, *how: path.read_bytes())
    assert load(graph_file(), "openvino", "auto", images=[x]).backend.precision == "float16"


def test_precision_auto_says_what_each_was_like_where_none_agrees(graph_file, providers, x):
    providers["openvino"] = Provider(open_wrong, lambda: None, ("float32",), ())
    with pytest.raises(BackendError, match=r"cosine of 0\.99 or more: float32: -?0\.\d+"):
        load(graph_file(), "openvino", "auto", images=[x])


def test_precision_auto_of_a_provider_that_is_missing(graph_file, providers, x):
    providers["openvino"] = Provider(open_wrong, lambda: "install it", ("float32",), ())
    with pytest.raises(BackendError, match="install it"):
        load(graph_file(), "openvino", "auto", images=[x])
    with pytest.raises(BackendError, match="unknown provider"):
        load(graph_file(), "abacus", "auto", images=[x])


def test_a_backend_that_gives_nan_agrees_with_nothing(graph_file, x, monkeypatch):
    right, broken = load(graph_file(), "cpu"), load(graph_file(), "cpu")
    run = broken.backend.run
    monkeypatch.setattr(
        broken.backend,
        "run",
        lambda inputs: {
            name: y + (np.nan if name == "pullback" else 0) for name, y in run(inputs).items()
        },
    )
    assert not agreement(broken, right, x).cosine >= -1
