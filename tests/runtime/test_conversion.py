"""Explain graphs in half precision: what stays in float32, and that the answer stays right."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch

import onnxplain
from onnxplain.contract.precision import OperatorPrecision
from onnxplain.errors import BackendError
from onnxplain.runtime import load
from onnxplain.runtime.conversion.half import PRECISIONS, convert, rounded, to_half
from onnxplain.runtime.conversion.quantised import float_biases
from onnxplain.runtime.onnx_file import read_metadata
from onnxplain.runtime.sessions.openvino.core import core
from onnxplain.runtime.verification import agreement

HALF = {"float16": onnx.TensorProto.FLOAT16, "bfloat16": onnx.TensorProto.BFLOAT16}
FLOAT = onnx.TensorProto.FLOAT


class Network(torch.nn.Module):
    """Pools, of windows that overlap and that tile, a residual branch, a mean, a normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.pool = torch.nn.MaxPool2d(3, 2, padding=1)
        self.tiles = torch.nn.Sequential(torch.nn.MaxPool2d(2), torch.nn.AvgPool2d((3, 1)))
        self.block = torch.nn.Conv2d(8, 8, 3, padding=1)
        self.norm = torch.nn.LayerNorm(8)
        self.head = torch.nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(torch.relu(self.stem(x)))
        x = self.tiles(torch.relu(x + self.block(x)))
        return self.head(self.norm(x.mean((2, 3))))


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.manual_seed(0)
    network, example = Network().eval(), torch.zeros(1, 3, 24, 24)
    options = {
        "plain": {},
        "step": {"step": True},
        "multi": {"multi_target": True},
        "kernels": {"kernels": True},
    }
    folder = tmp_path_factory.mktemp("precision")
    for name, given in options.items():
        onnxplain.export(network, folder / f"{name}.onnx", example=example, **given)
    return {name: folder / f"{name}.onnx" for name in options}


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((3, 3, 24, 24)).astype(np.float32)


def types(model: onnx.ModelProto) -> dict[str, int]:
    """Value → element type, for every value of a graph."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    declared = [*inferred.value_info, *inferred.input, *inferred.output]
    found = {value.name: value.type.tensor_type.elem_type for value in declared}
    return found | {tensor.name: tensor.data_type for tensor in inferred.initializer}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", ["plain", "step", "multi", "kernels"])
def test_the_graph_is_valid_and_its_inputs_and_outputs_are_those_of_the_contract(
    graphs, kind, precision
):
    before = onnx.load(graphs[kind])
    after = onnx.load_from_string(convert(graphs[kind], precision))
    onnx.checker.check_model(after, full_check=True)
    assert list(after.graph.input) == list(before.graph.input)
    assert [v.name for v in after.graph.output] == [v.name for v in before.graph.output]
    assert all(v.type.tensor_type.elem_type == FLOAT for v in after.graph.output)
    assert {p.key: p.value for p in after.metadata_props} == {
        p.key: p.value for p in before.metadata_props
    }


@pytest.mark.parametrize("precision", PRECISIONS)
def test_convolutions_and_their_weights_are_half(graphs, precision):
    model = onnx.load_from_string(convert(graphs["plain"], precision))
    found = types(model)
    weights = set()
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            assert found[node.input[0]] == found[node.output[0]] == HALF[precision]
            weights.add(node.input[1])
    kernels = [tensor for tensor in model.graph.initializer if tensor.name in weights]
    assert any(len(tensor.dims) == 4 for tensor in kernels)
    assert all(tensor.data_type == HALF[precision] for tensor in kernels)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["HardSwish", "Mish", "ConvTranspose"])
def test_what_tensorrt_refuses_in_bfloat16_is_in_float32_there_and_half_in_float16(
    tmp_path, precision, name
):
    activation = torch.nn.Mish() if name == "Mish" else torch.nn.Hardswish()
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, stride=2, padding=1),
        activation,
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 5),
    )
    onnxplain.export(network.eval(), tmp_path / "net.onnx", example=torch.zeros(1, 3, 24, 24))
    model = onnx.load_from_string(convert(tmp_path / "net.onnx", precision))
    found = types(model)
    (node,) = [node for node in model.graph.node if node.op_type == name]
    expected = FLOAT if precision == "bfloat16" else HALF[precision]
    assert [found[value] for value in (*node.input, *node.output)] == [expected] * (
        len(node.input) + 1
    )


@pytest.mark.parametrize("precision", PRECISIONS)
def test_exponentials_and_statistics_are_not(graphs, precision):
    model = onnx.load_from_string(convert(graphs["step"], precision))
    found = types(model)
    seen = set()
    for node in model.graph.node:
        if node.op_type in ("Exp", "ReduceMean", "ReduceL2", "LayerNormalization", "Sqrt"):
            seen.add(node.op_type)
            assert found[node.input[0]] == found[node.output[0]] == FLOAT
    assert {"Exp", "ReduceMean", "ReduceL2"} <= seen


def test_the_difference_that_goes_into_an_exponential_is_not_half(graphs):
    model = onnx.load_from_string(convert(graphs["plain"], "float16"))
    producers = {name: node for node in model.graph.node for name in node.output}
    exponentials = [node for node in model.graph.node if node.op_type == "Exp"]
    assert exponentials
    for exponential in exponentials:
        difference = producers[exponential.input[0]]
        assert difference.op_type == "Sub"
        assert {types(model)[name] for name in difference.input} == {FLOAT}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_sums_of_a_max_pool_that_tiles_are_not_half(graphs, precision):
    model = onnx.load_from_string(convert(graphs["plain"], precision))
    found = types(model)
    backward = [n for n in model.graph.node if n.name.startswith("pullback")]
    sums = [found[n.output[0]] for n in backward if n.op_type == "AveragePool"]
    assert sums == [FLOAT, FLOAT]  # of e and of e u


def test_a_value_is_cast_once_and_not_within_a_part(graphs):
    """Casts stand only between the two precisions, and never two on one value."""
    model = onnx.load_from_string(convert(graphs["plain"], "float16"))
    found = types(model)
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    produced = {name: node.op_type for node in model.graph.node for name in node.output}
    to_half_ = [
        (n.input[0], found[n.output[0]]) for n in casts if found[n.input[0]] != found[n.output[0]]
    ]
    assert max(Counter(to_half_).values()) == 1
    assert not any(produced.get(n.input[0]) == "Cast" for n in casts)


@pytest.mark.parametrize("kind", ["plain", "step", "multi", "kernels"])
def test_float16_is_right(graphs, kind, images):
    half, right = load(graphs[kind], "cpu", "float16"), load(graphs[kind], "cpu")
    assert half.backend.precision == "float16"
    assert agreement(half, right, images).cosine > 0.9999


def test_bfloat16_is_right_where_a_runtime_has_it(graphs, images):
    """OpenVINO runs the converted graph; ONNX Runtime's CPU provider has no such convolution."""
    pytest.importorskip("openvino")
    model = core().read_model(convert(graphs["plain"], "bfloat16"))
    compiled = core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    expected = load(graphs["plain"], "cpu")(images)
    found = compiled({"image": images, "target": expected.targets})
    for ours, theirs in (("logits", expected.logits), ("pullback", expected.pullback)):
        a, b = found[ours].ravel().astype(float), theirs.ravel().astype(float)
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.99


def test_the_steps_of_an_ascent_are_in_float32(graphs, images):
    """Steps of 20 in pixels' norm over images of other sizes: a sum of squares past float16's."""
    half, right = load(graphs["step"], "cpu", "float16"), load(graphs["step"], "cpu")
    expected = onnxplain.accentuate(right, images, [0, 1, 2], steps=2)
    found = onnxplain.accentuate(half, images, [0, 1, 2], steps=2)
    np.testing.assert_allclose(found.end, expected.end, atol=0.02)


def test_a_faint_pullback_does_not_vanish(tmp_path, images):
    """1e-6 of a gradient, which float16 alone would round to almost nothing."""
    torch.manual_seed(0)
    network = Network().eval()
    with torch.no_grad():
        network.stem.weight *= 1e-3
        network.norm.eps = 1.0
    onnxplain.export(network, tmp_path / "faint.onnx", example=torch.zeros(1, 3, 24, 24))
    half, right = (load(tmp_path / "faint.onnx", "cpu", p) for p in ("float16", "float32"))
    assert np.abs(right(images).pullback).max() < 1e-4
    assert agreement(half, right, images).pullback > 0.999


def constants_model(array: np.ndarray) -> ir.Model:
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["image", "c"], ["logits"])],
        "constants",
        [onnx.helper.make_tensor_value_info("image", FLOAT, [len(array)])],
        [onnx.helper.make_tensor_value_info("logits", FLOAT, [len(array)])],
        [onnx.numpy_helper.from_array(array, "c")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)])
    return ir.from_proto(model)


def test_a_constant_beyond_float16_becomes_its_largest_number_and_infinity_stays():
    array = np.array([1e30, -1e30, np.inf, 3.0], np.float32)
    value = constants_model(array).graph.initializers["c"]
    found = rounded(value, ir.DataType.FLOAT16)
    np.testing.assert_array_equal(found, np.array([65504, -65504, np.inf, 3], np.float16))


@pytest.mark.parametrize("scale", [np.float32(0.5), np.array([0.5, 0.25, 2], np.float32)])
def test_biases_in_integers_become_floats_and_the_answer_stays(scale):
    helper, constant = onnx.helper, onnx.numpy_helper.from_array
    graph = helper.make_graph(
        [
            helper.make_node("DequantizeLinear", ["w", "two"], ["weight"]),
            helper.make_node("DequantizeLinear", ["b", "scale"], ["bias"], axis=0),
            helper.make_node("Gemm", ["image", "weight", "bias"], ["logits"]),
        ],
        "quantised",
        [helper.make_tensor_value_info("image", FLOAT, ["N", 2])],
        [helper.make_tensor_value_info("logits", FLOAT, ["N", 3])],
        [
            constant(np.array([[1, -2, 3], [4, 5, -6]], np.int8), "w"),
            constant(np.array([100000, -7, 12], np.int32), "b"),
            constant(scale, "scale"),
            constant(np.float32(2), "two"),
        ],
    )
    before = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    model = ir.from_proto(before)
    float_biases(model)
    after = ir.to_proto(model)
    onnx.checker.check_model(after, full_check=True)
    assert [node.op_type for node in after.graph.node] == ["DequantizeLinear", "Gemm"]
    image = np.random.default_rng(0).standard_normal((2, 2)).astype(np.float32)
    found, expected = (
        onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            None, {"image": image}
        )[0]
        for m in (after, before)
    )
    np.testing.assert_array_equal(found, expected)


def test_an_unknown_precision(graphs):
    with pytest.raises(BackendError, match="float16 or bfloat16, not 'float8'"):
        convert(graphs["plain"], "float8")


def test_control_flow_is_refused_by_name():
    body = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["image"], ["out"])],
        "branch",
        [],
        [onnx.helper.make_tensor_value_info("out", FLOAT, [1])],
    )
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node(
                "If", ["c"], ["logits"], "fork", then_branch=body, else_branch=body
            )
        ],
        "control",
        [
            onnx.helper.make_tensor_value_info("image", FLOAT, [1]),
            onnx.helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, []),
        ],
        [onnx.helper.make_tensor_value_info("logits", FLOAT, [1])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)])
    with pytest.raises(BackendError, match="no form of If 'fork'"):
        to_half(ir.from_proto(model), "float16")


def test_a_converted_graph_runs_without_the_exporter(graphs, tmp_path, images):
    (tmp_path / "half.onnx").write_bytes(convert(graphs["plain"], "float16"))
    assert load(tmp_path / "half.onnx", "cpu")(images).pullback.dtype == np.float32
    onnxruntime.InferenceSession(tmp_path / "half.onnx", providers=["CPUExecutionProvider"])


def test_the_file_says_how_its_operators_compute(graphs):
    """Of the operators in it, those of the functions that `--kernels` kept included."""
    for kind, path in graphs.items():
        said = OperatorPrecision.find(read_metadata(path))
        assert said is not None
        model = onnx.load(path)
        present = {node.op_type for node in model.graph.node}
        present |= {node.op_type for function in model.functions for node in function.node}
        assert present >= {*said.float32, *said.follow, *said.float32_in_bfloat16}, kind
        assert {"Exp", "ReduceMean", "LayerNormalization"} <= {*said.float32}
        assert {"Relu", "Add", "Mul"} <= {*said.follow}
        assert {"Conv", "Gemm"}.isdisjoint(said.float32)
        assert OperatorPrecision.find(said.to_props()) == said


def test_a_graph_without_the_entry_has_only_its_products_in_halves(graphs, tmp_path, images):
    """As files of 0.1 are."""
    model = onnx.load(graphs["plain"])
    (entry,) = OperatorPrecision().to_props()
    kept = {p.key: p.value for p in model.metadata_props if p.key != entry}
    onnx.helper.set_model_props(model, kept)
    onnx.save(model, tmp_path / "old.onnx")
    for precision, half_type in HALF.items():
        after = onnx.load_from_string(convert(tmp_path / "old.onnx", precision))
        onnx.checker.check_model(after, full_check=True)
        found = types(after)
        halves = {n.op_type for n in after.graph.node if found[n.output[0]] == half_type}
        assert halves <= {"Conv", "ConvTranspose", "Gemm", "MatMul", "Cast"}
        assert {"Conv", "Gemm"} <= halves
    half, right = load(tmp_path / "old.onnx", "cpu", "float16"), load(graphs["plain"], "cpu")
    assert agreement(half, right, images).cosine > 0.9999


def test_a_damaged_entry_is_said_to_be():
    (entry,) = OperatorPrecision().to_props()
    for damaged in ("{}", "[1]", '{"float32": 3}', "no JSON"):
        with pytest.raises(BackendError, match="export it again"):
            OperatorPrecision.find({entry: damaged})
