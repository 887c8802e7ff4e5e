"""The float64 evaluator: nothing of a graph stays float32, and its figures are the reference's."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnxscript import GraphBuilder
from torch import nn

import onnxplain
from onnxplain.errors import InputError
from onnxplain.reference.float64 import evaluate_in_float64, evaluator, in_float64, run
from onnxplain.reference.parity import Parity
from onnxplain.reference.pytorch import explain

IMAGES = np.random.default_rng(0).standard_normal((2, 3, 12, 12), dtype=np.float32)
CLASSES = np.array([3, 0])


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, stride=2), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 5),
    ).eval()  # fmt: skip


def gate(path: Path) -> Path:
    """opens = 1 where image + 1 > 1, through an initializer, a constant's value and a cast."""
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 20}, name="gate")
    builder = GraphBuilder(graph)
    op = builder.op
    image = builder.input("image", ir.DataType.FLOAT, ["batch"])
    one = builder.initializer(ir.tensor(np.float32([1.0]), name="one"), "one")
    threshold = op.ConstantOfShape(op.Shape(image), value=ir.tensor(np.float32([1.0])))
    opens = op.Cast(op.Greater(op.Add(image, one), threshold), to=ir.DataType.FLOAT)
    opens.name, opens.shape, opens.dtype = "opens", image.shape, ir.DataType.FLOAT
    graph.outputs.append(opens)
    ir.save(ir.Model(graph, ir_version=10), path)
    return path


def test_a_gate_that_float32_shuts_is_open_in_float64(tmp_path: Path) -> None:
    path, image = gate(tmp_path / "gate.onnx"), np.float32([1e-9, -1e-9, 1.0])
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert session.run(None, {"image": image})[0].tolist() == [0, 0, 1]
    opens = evaluate_in_float64(path, {"image": image})["opens"]
    assert (opens.dtype, opens.tolist()) == (np.float64, [1, 0, 1])


def test_nothing_stays_float32_but_scales(tmp_path: Path) -> None:
    path = tmp_path / "explain.onnx"
    onnxplain.export(network(), path, example=torch.from_numpy(IMAGES), method="excitation")
    model = in_float64(onnx.load(path))
    onnx.checker.check_model(model, full_check=True)
    types = {
        v.name: v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.output)
    }
    assert types.pop("target") == onnx.TensorProto.INT64
    assert set(types.values()) == {onnx.TensorProto.DOUBLE}
    scales = {node.input[2] for node in model.graph.node if node.op_type == "Resize"}
    single = {w.name for w in model.graph.initializer if w.data_type == onnx.TensorProto.FLOAT}
    assert single == scales


@pytest.mark.parametrize(
    ("method", "bound"),
    # A graph holds its temperatures, 0.3 for one, as it was written: in float32.
    [("gradient", 1e-14), ("excitation", 5e-8), ("semantic", 5e-8)],
)
def test_float64_agrees_with_the_reference_where_float32_rounds(
    method: str, bound: float, tmp_path: Path
) -> None:
    path, module = tmp_path / "explain.onnx", network()
    onnxplain.export(module, path, example=torch.from_numpy(IMAGES), method=method)
    _, expected = explain(
        module.double(), torch.from_numpy(IMAGES).double(), torch.from_numpy(CLASSES), method
    )
    rounded = onnxplain.load(path, threads=1)(IMAGES, CLASSES).pullback
    found = evaluate_in_float64(path, {"image": IMAGES, "target": CLASSES})
    assert list(found) == ["logits", "pullback"]
    assert Parity.of(rounded, expected).relative_l2 > 5e-8
    assert Parity.of(found["pullback"], expected).relative_l2 < bound


def test_the_temperature_of_a_live_graph_is_fed_as_it_is(tmp_path: Path) -> None:
    path, module = tmp_path / "live.onnx", network()
    onnxplain.export(
        module, path, example=torch.from_numpy(IMAGES), method="excitation", live_temperature=True
    )
    feeds = {"image": IMAGES, "target": CLASSES, "temperature": np.array(0.7)}
    _, expected = explain(
        module.double(), torch.from_numpy(IMAGES).double(), torch.from_numpy(CLASSES),
        "excitation", 0.7,
    )  # fmt: skip
    found = evaluate_in_float64(path, feeds)["pullback"]
    assert Parity.of(found, expected).relative_l2 < 1e-10


CHOICES = """
    two = Constant <value = double {2.0}> ()
    around = Mul (x, two)
    sum = ReduceSum <keepdims = 0> (x)
    bright = Greater (sum, two)
    h = If (bright) <
        then_branch = p () => (double[3, T] u) { u = Mul (around, two) },
        else_branch = q () => (double[3, T] u) { u = Sin (around) }>
    last, loops = Loop (n, , h) <
        body = b (int64 i, bool c, double[3, T] s) => (bool d, double[3, T] t, double[3, T] r) {
            d = Identity (c)
            r = Mul (s, around)
            t = Tanh (r)
        }>
    start = ReduceSum <keepdims = 0> (last, one)
    y, scans = Scan <
        num_scan_inputs = 2, scan_input_axes = [1, -1], scan_input_directions = [1, 0],
        scan_output_axes = [-1], scan_output_directions = [1],
        body = e (double[3] s, double[3] p, double[3] q) => (double[3] t, double[3] z) {
            z = Mul (p, s)
            t = Sub (z, q)
        }> (start, x, around)
"""


@pytest.mark.parametrize("n", [0, 3])
@pytest.mark.parametrize("sign", [1, -1])
def test_control_flow_is_that_of_onnx_runtime(sign: int, n: int) -> None:
    """Several states and stacks, from either end along any axis, of what is read from around."""
    text = "(double[3, T] x, int64 n) => (double[3] y, double[R, 3, T] loops, double[3, T] scans)"
    model = onnx.parser.parse_model(
        f'<ir_version: 9, opset_import: ["": 20]> g {text} <int64[1] one = {{1}}> {{{CHOICES}}}'
    )
    x = sign * np.abs(np.random.default_rng(0).normal(size=(3, 4)))
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=providers)
    expected = session.run(None, {"x": x, "n": np.array(n)})
    found = run(evaluator(model), {"x": x, "n": np.array(n)})
    for name, array in zip(["y", "loops", "scans"], expected, strict=True):
        if array.size:
            np.testing.assert_allclose(found[name], array, rtol=1e-12)


def test_activations_are_dropped_once_they_are_used(tmp_path: Path) -> None:
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 20}, name="chain")
    builder = GraphBuilder(graph)
    y = image = builder.input("image", ir.DataType.FLOAT, ["elements"])
    for _ in range(50):
        y = builder.op.Neg(y)
    y.name, y.shape, y.dtype = "negated", image.shape, ir.DataType.FLOAT
    graph.outputs.append(y)
    ir.save(ir.Model(graph, ir_version=10), tmp_path / "chain.onnx")
    image = np.ones(1 << 17, np.float32)
    tracemalloc.start()
    try:
        negated = evaluate_in_float64(tmp_path / "chain.onnx", {"image": image})["negated"]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (negated == 1).all()
    assert peak < 6 * negated.nbytes


def test_an_operator_of_ones_own_is_told_in_a_sentence() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20, "acme" : 1]>'
        "agraph (float[N] x) => (float[N] y) { y = acme.Swirl (x) }"
    )
    with pytest.raises(InputError, match="Swirl"):
        evaluator(model)
