"""OpenVINO answers as ONNX Runtime does, from several threads, and with a cache that is checked."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxplain
from onnxplain.errors import BackendError
from onnxplain.runtime import load
from onnxplain.runtime.sessions.openvino import compile, options
from onnxplain.runtime.sessions.openvino.requests import failures
from onnxplain.runtime.verification import agreement

from .quantised import quantised

openvino = pytest.importorskip("openvino")


@pytest.mark.parametrize(
    "variant",
    [{}, {"multi_target": True}, {"layout": "NHWC"}, {"batch": 2}, {"live_temperature": True}],
    ids=str,
)
def test_every_kind_of_graph_gives_what_onnx_runtime_gives(graph_file, x, variant):
    path = graph_file(**variant)
    images = x.transpose(0, 2, 3, 1) if "layout" in variant else x
    found = load(path, "openvino")(images, [-1, 2, -2])
    expected = load(path, "cpu")(images, [-1, 2, -2])
    np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-5)
    np.testing.assert_allclose(found.pullback, expected.pullback, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(found.targets, expected.targets)


def test_it_says_what_it_runs_on(graph_file):
    made = load(graph_file(), "openvino").backend
    assert (made.name, made.device, made.precision) == ("openvino", "CPU", "float32")


@pytest.mark.parametrize("hint", options.HINTS)
def test_a_hint_and_a_number_of_threads_change_no_answer(graph_file, tiny, x, hint):
    explainer = load(graph_file(), "openvino", threads=1, hint=hint)
    np.testing.assert_allclose(explainer(x).logits, tiny.logits(x), rtol=1e-5)


def test_an_unknown_hint(graph_file):
    with pytest.raises(BackendError, match="hint is one of latency, throughput, not 'speed'"):
        load(graph_file(), "openvino", hint="speed")


def test_a_device_that_is_not_there_is_answered_with_those_that_are(graph_file):
    with pytest.raises(BackendError, match=r"finds no device 'TPU' here; it finds CPU"):
        load(graph_file(), "openvino", device="TPU")


def test_a_half_precision_is_what_the_device_computes_in_or_refused(graph_file, tiny, x):
    _, able = options.devices()["CPU"]
    for precision in ("bfloat16", "float16"):
        if precision in able:
            explainer = load(graph_file(), "openvino", precision)
            assert explainer.backend.precision == precision
            np.testing.assert_allclose(explainer(x).logits, tiny.logits(x), rtol=0.05, atol=0.05)
        else:
            with pytest.raises(BackendError, match=f"does not compute in {precision} on CPU"):
                load(graph_file(), "openvino", precision)


def test_bfloat16_is_refused_where_the_processor_has_none(graph_file, monkeypatch):
    has = {"CPU": ("An old processor ", ("float32", "int8"))}
    monkeypatch.setattr(options, "devices", lambda: has)
    with pytest.raises(
        BackendError, match=r"bfloat16 on CPU \(An old processor\); it does in float32, int8"
    ):
        load(graph_file(), "openvino", "bfloat16")


def test_int8_needs_a_quantised_network(graph_file):
    with pytest.raises(BackendError, match="is not quantised"):
        load(graph_file(), "openvino", "int8")


@pytest.mark.parametrize("options", [{}, {"ActivationSymmetric": True}], ids=str)
def test_int8_gives_what_onnx_runtime_gives_for_a_quantised_network(tmp_path, options):
    path = quantised(tmp_path, **options)
    images = np.random.default_rng(1).random((4, 3, 8, 8), np.float32)
    found, right = load(path, "openvino", "int8"), load(path, "cpu")
    assert found.backend.precision == "int8"
    assert agreement(found, right, images).cosine >= 0.99


def test_without_the_package_it_says_what_to_install(graph_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BackendError, match=r'pip install "onnxplain\[openvino\]"'):
        load(graph_file(), "openvino")


def test_files_that_are_no_explain_graphs_are_told_apart(graph_file, tmp_path):
    with pytest.raises(BackendError, match="no such file"):
        load(tmp_path / "none.onnx", "openvino")
    (tmp_path / "text.onnx").write_text("not a network")
    with pytest.raises(BackendError, match="not an ONNX file"):
        load(tmp_path / "text.onnx", "openvino")
    path = graph_file()
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    with pytest.raises(BackendError, match="not an explain graph"):
        load(path, "openvino")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"image": np.s_[:, :, :-1]}, r"'image' is float32 \[3, 3, 5, 8\], not .* \[\?, 3, 6, 8\]"),
        ({"target": np.s_[:2]}, r"of different batches: \[2, 3\]"),
        ({"target": None}, "inputs are image, target, not image"),
    ],
    ids=["size", "batch", "missing"],
)
def test_inputs_that_do_not_fit_are_refused_and_leave_it_usable(graph_file, tiny, x, wrong, said):
    made = load(graph_file(), "openvino")
    inputs = {"image": x, "target": np.array([0, 1, 2])}
    for name, part in wrong.items():
        array = inputs.pop(name)
        if part is not None:
            inputs[name] = array[part]
    with pytest.raises(BackendError, match=said):
        made.backend.run(inputs)
    np.testing.assert_allclose(made(x).logits, tiny.logits(x), rtol=1e-5)


def test_a_call_that_fails_within_the_graph_leaves_it_usable(tmp_path):
    """A target out of range fails at a node in the middle, a batch that differs at another."""
    square_network(tmp_path / "square.onnx", "Gemm")
    path = tmp_path / "square.explain.onnx"
    onnxplain.export(tmp_path / "square.onnx", path)
    made = load(path, "openvino")
    images = np.random.default_rng(1).normal(size=(3, 3, 4, 4)).astype(np.float32)
    expected = made(images).pullback
    alone = made(images[:1]).pullback
    for count, wrong in ((3, [0, 1, 9]), (3, [0, 1]), (1, [9])):
        with pytest.raises(BackendError, match="OpenVINO failed"):
            fail(made.backend, {"image": images[:count], "target": np.array(wrong)})
        np.testing.assert_array_equal(made(images).pullback, expected)
        np.testing.assert_array_equal(made(images[:1]).pullback, alone)


def fail(made, inputs):
    """A call with inputs that a check would refuse."""
    good = {"image": inputs["image"], "target": np.zeros(len(inputs["image"]), np.int64)}
    with made._request(good) as request, failures():
        request.infer(inputs)


def test_only_what_runs_stays_in_memory(graph_file, tiny, x):
    explainer = load(graph_file(), "openvino")
    explainer(x)
    assert [*explainer.backend._made] == [None]
    explainer(x[:1])
    explainer(x)
    alone = (("image", (1, 3, tiny.height, tiny.width)), ("target", (1,)))
    assert [*explainer.backend._made] == [None, alone]


def test_a_file_that_is_no_longer_the_one_loaded_is_not_mixed_with_it(graph_file, x):
    path = graph_file()
    explainer = load(path, "openvino")
    before = explainer(x[:1]).logits
    other = onnx.load(path)
    other.producer_name = "somebody else"
    onnx.save(other, path)
    with pytest.raises(BackendError, match="no longer the file that was loaded"):
        explainer(x)
    np.testing.assert_array_equal(explainer(x[:1]).logits, before)


def test_one_image_and_several_are_explained_alike(graph_file, x):
    explainer = load(graph_file(), "openvino")
    alone = [explainer(image[None]) for image in x]
    together = explainer(x)
    np.testing.assert_allclose([e.logits[0] for e in alone], together.logits, rtol=1e-5)
    found = np.stack([e.pullback[0] for e in alone])
    np.testing.assert_allclose(found, together.pullback, rtol=1e-5, atol=1e-7)


def kept(cache: Path) -> Path:
    (blob,) = (cache / "onnxplain" / "openvino").iterdir()
    return blob


def test_what_was_compiled_is_kept_and_used_again(graph_file, tiny, x, cache, monkeypatch):
    path = graph_file()
    load(path, "openvino")
    assert kept(cache).stat().st_size > 0
    load(path, "openvino")(x)
    monkeypatch.setattr(openvino.Core, "compile_model", None)  # so that another one would fail
    explainer = load(path, "openvino")
    for images in (x, x[:1]):
        np.testing.assert_allclose(explainer(images).logits, tiny.logits(images), rtol=1e-5)


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied"])
def test_a_damaged_cache_is_never_executed_but_made_anew(graph_file, tiny, x, cache, damage):
    path = graph_file()
    load(path, "openvino")
    whole = kept(cache).read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    damaged = {"cut": whole[: len(whole) // 2], "flipped": bytes(flipped), "emptied": b""}[damage]
    kept(cache).write_bytes(damaged)
    with pytest.warns(UserWarning, match="damaged"):
        explainer = load(path, "openvino")
    np.testing.assert_allclose(explainer(x).logits, tiny.logits(x), rtol=1e-5)
    with warnings.catch_warnings(action="error"):
        load(path, "openvino")


def test_a_graph_exported_anew_to_the_same_path_is_compiled_anew(graph_file, x):
    path = graph_file()
    before = load(path, "openvino")(x).logits
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name == "b":
            bias = numpy_helper.to_array(tensor) + np.float32(1)
            tensor.CopyFrom(numpy_helper.from_array(bias, "b"))
    onnx.save(model, path)
    np.testing.assert_allclose(load(path, "openvino")(x).logits, before + 1, rtol=1e-5)


def test_a_cache_that_cannot_be_written_is_no_obstacle(graph_file, tiny, x, cache):
    (cache / "onnxplain").write_text("in the way")
    with pytest.warns(UserWarning, match="cannot be kept"):
        explainer = load(graph_file(), "openvino")
    np.testing.assert_allclose(explainer(x).logits, tiny.logits(x), rtol=1e-5)


def square_network(path: Path, forward: str) -> None:
    """Two layers, the second square, whose weight forward and backward share."""
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        array = rng.normal(size=shape) / np.sqrt(shape[-1])
        return numpy_helper.from_array(array.astype(np.float32), name)

    layers: dict[str, list[onnx.NodeProto]] = {
        "Gemm": [helper.make_node("Gemm", ["r", "W"], ["y"], transB=1)],
        "MatMul": [helper.make_node("MatMul", ["r", "W"], ["y"])],
    }
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("Gemm", ["flat", "A"], ["z"], transB=1),
        helper.make_node("Relu", ["z"], ["r"]),
        *layers[forward],
        helper.make_node("Relu", ["y"], ["s"]),
        helper.make_node("Gemm", ["s", "B"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "square",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 4, 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 5])],
        [weight("A", 16, 48), weight("W", 16, 16), weight("B", 5, 16)],
    )
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)


@pytest.mark.parametrize("forward", ["Gemm", "MatMul"])
def test_a_square_weight_of_forward_and_backward_is_right(tmp_path, forward):
    """OpenVINO (2026.4) gives a wrong answer where W and its transpose are of one shape."""
    square_network(tmp_path / "square.onnx", forward)
    path = tmp_path / "square.explain.onnx"
    onnxplain.export(tmp_path / "square.onnx", path)
    images = np.random.default_rng(1).normal(size=(3, 3, 4, 4)).astype(np.float32)
    found, expected = load(path, "openvino")(images), load(path, "cpu")(images)
    np.testing.assert_allclose(found.pullback, expected.pullback, rtol=1e-4, atol=1e-6)
    forward_size = (tmp_path / "square.onnx").stat().st_size
    weights = [t for t in onnx.load(path).graph.initializer if len(t.dims) == 2]
    assert sum(np.prod(t.dims) for t in weights) * 4 < forward_size  # each is stored once


CONVOLUTIONS = {
    "stride 2": {"kernel_size": 3, "stride": 2, "padding": 1},
    "stride 2, 1 x 1": {"kernel_size": 1, "stride": 2},
    "stride 2, in groups": {"kernel_size": 3, "stride": 2, "padding": 1, "groups": 2},
    "stride 2, depthwise": {"kernel_size": 3, "stride": 2, "padding": 1, "groups": 8},
    "stride 1": {"kernel_size": 3, "padding": 1},
    "stride 1, 1 x 1": {"kernel_size": 1},
    "transposed": {"kernel_size": 2, "stride": 2},
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_a_convolution_to_as_many_channels_is_right(tmp_path, kind):
    """The same, of a convolution and the transposed one that is its backward."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    layer = torch.nn.ConvTranspose2d if kind == "transposed" else torch.nn.Conv2d
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 1),
        torch.nn.ReLU(),
        layer(8, 8, **CONVOLUTIONS[kind]),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 5),
    )
    path = tmp_path / "convolution.explain.onnx"
    onnxplain.export(network.eval(), path, example=torch.zeros(1, 3, 12, 12))
    images = np.random.default_rng(1).normal(size=(3, 3, 12, 12)).astype(np.float32)
    found, expected = load(path, "openvino")(images), load(path, "cpu")(images)
    np.testing.assert_allclose(found.pullback, expected.pullback, rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def kept_calls(tmp_path_factory):
    """A graph exported with kernels=True, whose functions OpenVINO's frontend does not take."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(3, 2, 1),
        torch.nn.Conv2d(4, 4, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(4, 5),
    )
    path = tmp_path_factory.mktemp("kernels") / "kernels.explain.onnx"
    onnxplain.export(network.eval(), path, example=torch.zeros(1, 3, 12, 12), kernels=True)
    assert len(onnx.load(path).functions) == 2
    return path


def test_a_graph_exported_with_kernels_is_read_with_their_bodies(kept_calls):
    images = np.random.default_rng(1).normal(size=(3, 3, 12, 12)).astype(np.float32)
    found, expected = load(kept_calls, "openvino")(images), load(kept_calls, "cpu")(images)
    np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-5)
    np.testing.assert_allclose(found.pullback, expected.pullback, rtol=1e-4, atol=1e-6)


def test_without_what_writes_the_bodies_out_it_says_how_to_export(kept_calls, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxplain.runtime.conversion.functions", None)
    with pytest.raises(BackendError, match=r"exported with kernels=True.*onnxplain\[export\]"):
        load(kept_calls, "openvino")


def mobile_network(torch, channels: int = 16):
    """A convolution and a depthwise one whose large weights cancel on what all pixels share."""
    torch.manual_seed(0)
    depthwise = torch.nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
    with torch.no_grad():
        depthwise.weight -= depthwise.weight.mean((2, 3), keepdim=True)
        depthwise.weight *= 30
    first = torch.nn.Conv2d(3, channels, 3, padding=1)
    with torch.no_grad():
        first.bias += 3
    return torch.nn.Sequential(
        first,
        torch.nn.ReLU6(),
        depthwise,
        torch.nn.ReLU6(),
        torch.nn.Conv2d(channels, 32, 1),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(32, 5),
    ).eval()


def test_bfloat16_keeps_a_mobile_networks_stem_in_float32(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    if "bfloat16" not in options.devices()["CPU"][1]:
        pytest.skip("this processor does not compute in bfloat16")
    path = tmp_path / "mobile.explain.onnx"
    onnxplain.export(mobile_network(torch), path, example=torch.zeros(1, 3, 24, 24))
    images = np.random.default_rng(0).normal(size=(3, 3, 24, 24)).astype(np.float32)
    right = load(path, "cpu")
    kept = agreement(load(path, "openvino", "bfloat16"), right, images).pullback
    monkeypatch.setattr(compile, "_FORMAT", -1)  # another place in the cache
    monkeypatch.setattr(compile, "stem_in_float32", lambda model: model)
    rounded = agreement(load(path, "openvino", "bfloat16"), right, images).pullback
    assert kept > 0.99
    assert 1 - rounded > 2 * (1 - kept)
