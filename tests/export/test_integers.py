"""Networks that compute with integers, in QOperator format or quantised dynamically.

Their explanation is compared with that of PyTorch on the file's own integers, straight through.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic
from torch.nn import functional

import onnxplain
from onnxplain.errors import NoRuleError
from onnxplain.export.canonical.integers import spell_integers
from onnxplain.runtime.sessions.onnx_runtime.options import session_options
from onnxplain.runtime.sessions.tensorrt import build_engine

from .graphs import (
    cosine,
    explain,
    head,
    images,
    node,
    operators,
    session,
    source_outputs,
    write,
)
from .quantised import quantised, write_network

X = images(4, 3, 12, 12)
QOPERATOR = {"quant_format": QuantFormat.QOperator}
SIGNED = {"activation_type": QuantType.QInt8}


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return write_network(tmp_path)


def dynamic(network: Path, **options: Any) -> Path:
    path = network.with_name("dynamic.onnx")
    quantize_dynamic(network, path, **options)
    return path


FORMATS: dict[str, Callable[[Path], Path]] = {
    "dynamic": dynamic,
    "dynamic, per channel": lambda network: dynamic(network, per_channel=True),
    "QOperator": lambda network: quantised(network, X, **QOPERATOR, per_channel=False),
    "QOperator, per channel": lambda network: quantised(network, X, **QOPERATOR),
    "QOperator, signed": lambda network: quantised(network, X, **QOPERATOR, **SIGNED),
}
BOTH = ("dynamic", "QOperator, per channel")


# ----- PyTorch on a file's integers -----


class _Exactly(torch.autograd.Function):
    """The second operand, as though it were the first."""

    @staticmethod
    def forward(ctx: Any, y: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
        return rounded.clone()

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        return g[0], None


def quantise(x: torch.Tensor, scale: Any, zero: Any, lowest: int) -> torch.Tensor:
    """Saturation is a ReLU where zero is the lowest value, and ReLU6 where the highest stands for
    6; else the cotangent passes it too."""
    whole = ((x / scale).round() + zero).clamp(lowest, lowest + 255).detach()
    if zero == lowest:
        x = x.clamp(min=0) if abs(scale * 255 - 6) > 0.01 else x.clamp(0, 6)
    return _Exactly.apply(x / scale, whole)


def channels(parameter: Any, rank: int) -> torch.Tensor:
    """A number, or one for each of the first axis."""
    return torch.as_tensor(parameter, dtype=torch.float32).reshape(-1, *[1] * (rank - 1))


def run(path: Path, x: torch.Tensor) -> torch.Tensor:
    """The logits of a file with integers, which are kept as floats."""
    graph = onnx.load(path).graph
    weights = {w.name: numpy_helper.to_array(w) for w in graph.initializer}
    lowest = {name: np.iinfo(w.dtype).min for name, w in weights.items() if w.dtype.kind in "iu"}
    values: dict[str, Any] = {k: torch.tensor(w.astype(np.float32)) for k, w in weights.items()}
    values[graph.input[0].name] = x

    def rounded(y: torch.Tensor, scale: str, zero: str) -> torch.Tensor:
        return quantise(y, float(values[scale]), float(values[zero]), lowest[zero])

    for n in graph.node:
        given = [values.get(name) for name in n.input]
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in n.attribute}
        padding = attributes.get("pads", [0])[0]
        a, b, c, d = [*given, None, None, None][:4]
        y: Any
        match n.op_type:
            case "DynamicQuantizeLinear":
                low, high = a.detach().min().clamp(max=0), a.detach().max().clamp(min=0)
                scale = (high - low) / 255
                zero = (-low / scale).round().clamp(0, 255)
                q = _Exactly.apply(a / scale, ((a / scale).round() + zero).clamp(0, 255).detach())
                values.update(zip(n.output, (q, scale, zero), strict=True))
                continue
            case "QuantizeLinear":
                y = rounded(a, *n.input[1:3])
            case "DequantizeLinear":
                y = (a - c) * b
            case "ConvInteger":
                y = functional.conv2d(a - c, b - channels(d, 4), padding=padding)
            case "MatMulInteger":
                y = (a - c) @ (b - d)
            case "QLinearConv":
                w = (given[3] - channels(given[5], 4)) * channels(given[4], 4)
                bias = given[8] * b * given[4]
                y = rounded(functional.conv2d((a - c) * b, w, bias, padding=padding), *n.input[6:8])
            case "QLinearMatMul":
                w = (given[3] - given[5]) * given[4]
                y = rounded((a - c) * b @ w, *n.input[6:8])
            case "QLinearAdd":
                y = (a - c) * b + (given[3] - given[5]) * given[4]
                y = rounded(y, *n.input[6:8])
            case "QLinearGlobalAveragePool":
                y = rounded(((a - c) * b).mean((2, 3), keepdim=True), *n.input[3:5])
            case "GlobalAveragePool":
                y = a.mean((2, 3), keepdim=True)
            case "MaxPool":
                y = functional.max_pool2d(a, 2)
            case "Relu":
                y = a.relu()
            case "Clip":
                y = a.clamp(b, c)
            case "Cast":
                y = a
            case "Mul":
                y = a * b
            case "Add":
                y = a + b
            case "Reshape":
                y = a.reshape([int(size) for size in b])
            case "Flatten":
                y = a.flatten(1)
            case _:
                raise NotImplementedError(n.op_type)
        values[n.output[0]] = y
    return values[graph.output[0].name]


@pytest.mark.parametrize("name", FORMATS)
def test_the_forward_result_is_the_files_own_and_the_gradient_straight_through(
    name: str, network: Path, compared: None
) -> None:
    source = FORMATS[name](network)
    x = torch.tensor(X, requires_grad=True)
    logits = run(source, x)
    (expected,) = torch.autograd.grad(logits[:, 1].sum(), x)
    found = explain(source, X)
    (own,) = source_outputs(source, X)
    np.testing.assert_allclose(found.logits, own, rtol=1e-5, atol=1e-5 * np.abs(own).max())
    np.testing.assert_allclose(logits.detach(), own, rtol=1e-4, atol=1e-4)
    error = np.linalg.norm(found.pullback - expected.numpy()) / np.linalg.norm(expected.numpy())
    assert error <= 1e-4


@pytest.mark.parametrize("name", BOTH)
def test_the_explanation_is_close_to_the_float_networks(name: str, network: Path) -> None:
    """Of methods with a gate, and of relevances: layers are what they were before."""
    source = FORMATS[name](network)
    for method, least in (("excitation", 0.98), ("semantic", 0.98), ("lrp-zplus", 0.99)):
        expected, found = (explain(path, X, method=method) for path in (network, source))
        assert cosine(found.pullback, expected.pullback) >= least


@pytest.mark.parametrize("name", BOTH)
def test_several_targets(name: str, network: Path) -> None:
    source = FORMATS[name](network)
    path = network.with_name("k.onnx")
    onnxplain.export(source, path, method="excitation", multi_target=True)
    both = onnxplain.load(path, threads=1)(X, np.array([[0, 2]] * 4))
    for k, target in enumerate((0, 2)):
        alone = explain(source, X, method="excitation", target=target)
        np.testing.assert_allclose(both.pullback[:, k], alone.pullback, atol=1e-6)


@pytest.mark.parametrize("name", BOTH)
def test_weights_stay_integers(name: str, network: Path) -> None:
    source = FORMATS[name](network)
    explain(source, X)
    kinds = {}
    for path in (source, source.with_suffix(".gradient.onnx")):
        weights = [numpy_helper.to_array(w) for w in onnx.load(path).graph.initializer]
        kinds[path] = sorted(w.shape for w in weights if w.dtype.itemsize == 1 and w.size > 8)
    first, second = kinds.values()
    assert first == second
    assert first


@pytest.mark.parametrize("name", BOTH)
def test_tensorrt_takes_the_graph(name: str, network: Path) -> None:
    """No integers but quantisers of constant scale: a dynamic quantiser is spelled in floats."""
    symmetric = {**QOPERATOR, **SIGNED, "extra_options": {"ActivationSymmetric": True}}
    source = dynamic(network) if name == "dynamic" else quantised(network, X, **symmetric)
    explain(source, X)
    path = source.with_suffix(".gradient.onnx")
    assert not operators(path).keys() & {"DynamicQuantizeLinear", "MatMulInteger", "ConvInteger"}
    build_engine(path, sm=[89], precision="float32" if name == "dynamic" else "int8", keep=False)


def test_a_batch_that_a_dynamic_quantiser_sees_as_a_whole_stays_fixed(tmp_path: Path) -> None:
    """Its scale is that of all images together."""
    tail, weight = head("c", 2 * 36)
    conv = node("Conv", ["x", "A"], ["c"])
    weights = {"A": images(2, 3, 3, 3)} | weight
    source = dynamic(write(tmp_path / "net.onnx", [conv, *tail], weights, (2, 3, 8, 8)))
    metadata = onnxplain.export(source, tmp_path / "e.onnx")
    assert any("DynamicQuantizeLinear" in note for note in metadata.notes)


def test_an_open_batch_that_it_sees_as_a_whole_is_noted(network: Path, tmp_path: Path) -> None:
    metadata = onnxplain.export(dynamic(network), tmp_path / "e.onnx")
    assert any("all images of a batch" in note for note in metadata.notes)


# ----- each operator -----


def test_every_operator_of_the_qoperator_format(tmp_path: Path, compared: None) -> None:
    nodes = [
        node("Conv", ["x", "A", "a"], ["c"], pads=[1] * 4),
        node("Sigmoid", ["c"], ["s"]),
        node("Mul", ["c", "s"], ["m"]),
        node("LeakyRelu", ["m"], ["l"], alpha=0.1),
        node("AveragePool", ["l"], ["v"], kernel_shape=[2, 2], strides=[2, 2]),
        node("MaxPool", ["l"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Concat", ["v", "p"], ["k"], axis=1),
        node("Pad", ["k", "pads"], ["padded"]),
        node("Resize", ["padded", "", "scales"], ["r"], mode="nearest"),
        node("Transpose", ["r"], ["t"], perm=[0, 2, 3, 1]),
        node("Softmax", ["t"], ["w"], axis=-1),
        node("Split", ["w"], ["w1", "w2"], axis=1, num_outputs=2),
        node("Add", ["w1", "w2"], ["f"]),
        node("Flatten", ["f"], ["flat"]),
        node("Gemm", ["flat", "G", "g"], ["h"], transB=1),
        node("Relu", ["h"], ["relu"]),
        node("MatMul", ["relu", "W"], ["y"]),
    ]
    weights = {
        "A": images(4, 3, 3, 3, seed=1),
        "a": images(4, seed=2),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        "scales": np.float32([1, 1, 2, 2]),
        "G": images(10, 8 * 16 * 8, seed=5) / 30,
        "g": images(10, seed=6),
        "W": images(10, 4, seed=7),
    }
    network = write(tmp_path / "net.onnx", nodes, weights, ("N", 3, 12, 12))
    expected = explain(network, X)
    for options in ({}, SIGNED):
        source = quantised(network, X, **QOPERATOR, **options)
        found = explain(source, X)
        (logits,) = source_outputs(source, X)
        np.testing.assert_allclose(found.logits, logits, atol=1e-6)
        assert cosine(found.pullback, expected.pullback) >= 0.99


U, V, S = np.uint8(120), np.int8(3), np.float32(0.03)
OTHERS = {
    "DynamicQuantizeMatMul": (
        [node("DynamicQuantizeMatMul", ["f", "w", "s", "i", "b"], ["y"], domain="com.microsoft")],
        lambda x, w: x @ w + 1,
    ),
    "MatMulIntegerToFloat": (
        [
            node("DynamicQuantizeLinear", ["f"], ["q", "qs", "qz"]),
            node(
                "MatMulIntegerToFloat",
                ["q", "w", "qs", "s", "qz", "i", "b"],
                ["y"],
                domain="com.microsoft",
            ),
        ],
        lambda x, w: x @ w + 1,
    ),
    "moved before it is multiplied": (
        [
            node("DynamicQuantizeLinear", ["f"], ["q", "qs", "qz"]),
            node("Unsqueeze", ["q", "one"], ["q1"]),
            node("MatMulInteger", ["q1", "w", "qz", "i"], ["n"]),
            node("Cast", ["n"], ["n1"], to=1),
            node("Mul", ["qs", "s"], ["both"]),
            node("Mul", ["both", "n1"], ["y1"]),
            node("Flatten", ["y1"], ["y"]),
        ],
        lambda x, w: x @ w,
    ),
    "its bias rounded to the scale of the sum": (
        [
            node("DynamicQuantizeLinear", ["f"], ["q", "qs", "qz"]),
            node("MatMulInteger", ["q", "w", "qz", "i"], ["n"]),
            node("Mul", ["qs", "s"], ["both"]),
            node("Div", ["b", "both"], ["b1"]),
            node("Floor", ["b1"], ["b2"]),
            node("Cast", ["b2"], ["b3"], to=onnx.TensorProto.INT32),
            node("Add", ["n", "b3"], ["n1"]),
            node("Cast", ["n1"], ["n2"], to=1),
            node("Mul", ["n2", "both"], ["y"]),
        ],
        lambda x, w: x @ w + 1,
    ),
    "of a constant scale": (
        [
            node("QuantizeLinear", ["f", "s", "u"], ["q"]),
            node("MatMulInteger", ["q", "w", "u", "i"], ["n"]),
            node("Cast", ["n"], ["n1"], to=1),
            node("Mul", ["n1", "ss"], ["y"]),
        ],
        lambda x, w: x @ w,
    ),
    "QLinearWhere": (
        [
            node("QuantizeLinear", ["f", "s", "u"], ["q"]),
            node(
                "QLinearWhere", ["mask", "q", "s", "u", "u", "s", "u", "s", "u"], ["z"],
                domain="com.microsoft",
            ),
            node("DequantizeLinear", ["z", "s", "u"], ["d"]),
            node("MatMul", ["d", "W"], ["y"]),
        ],
        lambda x, w: (x * (torch.arange(48) % 2 == 0)) @ (torch.arange(48 * 4.0).reshape(48, 4)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_operators_as_they_stand_in_other_files(name: str, tmp_path: Path, compared: None) -> None:
    nodes, function = OTHERS[name]
    integers = np.random.default_rng(0).integers(-50, 50, (48, 4)).astype(np.int8)
    constants = {
        "w": integers, "s": S, "ss": S * S, "i": V, "u": U, "b": np.ones(4, np.float32),
        "one": np.array([1]), "mask": np.arange(48) % 2 == 0,
        "W": np.arange(48 * 4, dtype=np.float32).reshape(48, 4),
    }  # fmt: skip
    source = write(
        tmp_path / "q.onnx",
        [node("Flatten", ["x"], ["f"]), *nodes],
        constants,
        ("N", 3, 4, 4),
        domains=["com.microsoft"],
    )
    x = images(2, 3, 4, 4)
    found = explain(source, x)
    (expected,) = source_outputs(source, x)
    np.testing.assert_allclose(found.logits, expected, atol=1e-5 * np.abs(expected).max())
    image = torch.tensor(x, requires_grad=True)
    y = function(image.flatten(1), torch.tensor((integers - np.float32(V)) * S))
    (gradient,) = torch.autograd.grad(y[:, 1].sum(), image)
    np.testing.assert_allclose(found.pullback, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("directions", [1, 2])
def test_an_lstm_rounds_its_states_at_every_step(
    directions: int, per_channel: bool, tmp_path: Path, compared: None
) -> None:
    kind = "bidirectional" if directions == 2 else "forward"
    nodes = [
        node("Squeeze", ["x", "one"], ["s"]),
        node("Transpose", ["s"], ["t"], perm=[1, 0, 2]),
        node("LSTM", ["t", "A", "R", "B"], ["", "h"], hidden_size=5, direction=kind),
        node("Transpose", ["h"], ["k"], perm=[1, 0, 2]),
    ]
    tail, weight = head("k", 5 * directions)
    weights = {
        "one": np.array([1]),
        "A": images(directions, 20, 12, seed=1) / 3,
        "R": images(directions, 20, 5, seed=2) / 3,
        "B": images(directions, 40, seed=3),
    }
    network = write(tmp_path / "net.onnx", [*nodes, *tail], weights | weight, ("N", 1, 6, 12))
    x = images(1, 1, 6, 12)
    source = dynamic(network, per_channel=per_channel, op_types_to_quantize=["LSTM"])
    found, expected = explain(source, x), explain(network, x)
    # Products of 8-bit integers overflow in ONNX Runtime's own choice where there is no VNNI.
    own = onnxruntime.InferenceSession(source, session_options(threads=1))
    np.testing.assert_allclose(found.logits, own.run(None, {"x": x})[0], atol=1e-6)
    assert np.abs(found.logits - expected.logits).max() > 1e-3
    assert cosine(found.pullback, expected.pullback) >= 0.99


@pytest.mark.parametrize(
    ("operator", "attributes"),
    [("QAttention", {}), ("QLinearConv", {"channels_last": 1})],
)
def test_what_has_no_form_says_to_use_qdq(
    operator: str, attributes: dict[str, int], tmp_path: Path
) -> None:
    made = node(operator, ["x"] * 8, ["y"], domain="com.microsoft", **attributes)
    source = write(tmp_path / "net.onnx", [made], {}, domains=["com.microsoft"])
    with pytest.raises(NoRuleError, match=rf"{operator}.*computes with integers.*QDQ format"):
        onnxplain.export(source, tmp_path / "e.onnx")


def test_a_constant_image_has_a_scale_of_one(tmp_path: Path) -> None:
    """Where the least number is the greatest, ONNX Runtime divides by nothing."""
    tail, weight = head("x", 3 * 64)
    source = dynamic(write(tmp_path / "net.onnx", tail, weight))
    zeros = np.zeros([1, 3, 8, 8], np.float32)
    found = explain(source, zeros)
    assert np.isfinite(found.logits).all()
    np.testing.assert_array_equal(found.logits, session(source).run(None, {"x": zeros})[0])


def test_where_elements_were_found_stays_a_whole_number() -> None:
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1, 9]))
    count = ir.Value(name="k", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([1]))
    node = ir.node("TopK", [x, count], num_outputs=2)
    largest, indices = node.outputs
    indices.type = ir.TensorType(ir.DataType.INT64)
    graph = ir.Graph([x, count], [largest, indices], nodes=[node], opset_imports={"": 20})
    spell_integers(ir.Model(graph, ir_version=10))
    assert (largest.dtype, indices.dtype) == (ir.DataType.FLOAT, ir.DataType.INT64)
