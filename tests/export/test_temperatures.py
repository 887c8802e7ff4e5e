"""The factor 1/T is carried by the forward pass, and nothing else changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import onnxplain
from onnxplain.export import backward
from onnxplain.export.check import builder_of, finished
from onnxplain.export.temperatures import fold_temperatures
from onnxplain.runtime.sessions.onnx_runtime.placement import placement

from .graphs import Array, head, images, node, operators, write
from .test_random_graphs import Plan, plans
from .vjps.check import drawn, evaluated

T = 0.3


def gated(plan: Plan, seed: int, fold: bool) -> list[Array]:
    """What a random graph computes, and behind it gates of several temperatures, and readers."""
    model = plan.forward_model(ir.DataType.DOUBLE)
    graph, op, random = model.graph, builder_of(model), np.random.default_rng(seed)
    (image,), logits = graph.inputs, graph.outputs[0]
    for value in [y for n in graph for y in n.outputs if y.dtype == ir.DataType.DOUBLE]:
        factor = random.choice([1 / T, 1 / T, 1 / T, 0.7, 0.0])
        if factor:
            graph.outputs.append(op.Sigmoid(op.Mul(value, float(factor))))
        if random.random() < 0.2:
            graph.outputs.append(op.Cos(value))
        if random.random() < 0.2:
            graph.outputs.append(op.Cast(op.Greater(value, 0.25), to=ir.DataType.DOUBLE))
    if fold:
        fold_temperatures(op, image, [logits])
        graph.sort()
    return list(evaluated(finished(model))({"x0": plan.inputs[0]}))


@settings(drawn(20), phases=[Phase.generate])
@given(plans, st.integers(0, 99))
def test_a_random_graph_computes_what_it_did(plan, seed):
    case = Plan("", [np.random.default_rng(seed).normal(size=[2, 2, 4, 4])], steps=plan)
    for found, expected in zip(gated(case, seed, True), gated(case, seed, False), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)


WEIGHTS = {
    "w1": images(4, 3, 3, 3, seed=1),
    "b1": images(4, seed=2),
    "w2": images(4, 4, 1, 1, seed=3),
    "b2": images(4, seed=4),
    "w3": images(6, 4, 3, 3, seed=5),
    "six": np.float32(6),
    "zero": np.float32(0),
    "half": np.float32(0.5),
    "floor": images(4, 1, 1, seed=11) ** 2,
    "left": images(2, 3, seed=12),
    "right": images(3, 4, seed=13),
    "two": np.array([2, 4]),
    "scale": images(8, seed=6),
    "variance": images(8, seed=7) ** 2 + 0.5,
    "w4": images(5, 8, 1, 1, seed=8),
    "addend": images(1, 4, 1, 1, seed=10),
}
AROUND = {"pads": [1] * 4}
STEM = [node("Conv", ["x", "w1", "b1"], ["a"], **AROUND)]
NETWORKS = {
    "residual": [
        *STEM,
        node("Relu", ["a"], ["b"]),
        node("Conv", ["b", "w2", "b2"], ["c"]),
        node("Add", ["c", "a"], ["d"]),
        node("Add", ["d", "addend"], ["e"]),
        node("Relu", ["e"], ["f"]),
        node("MaxPool", ["f"], ["g"], kernel_shape=[3, 3], strides=[2, 2], **AROUND),
    ],
    "relu6 and a bottleneck": [
        *STEM,
        node("Clip", ["a", "zero", "six"], ["b"]),
        node("Conv", ["b", "w2", "b2"], ["c"]),
        node("Conv", ["c", "w2", "b2"], ["d"]),
        node("Clip", ["d", "zero", "six"], ["e"]),
        node("AveragePool", ["e"], ["g"], kernel_shape=[2, 2], strides=[2, 2]),
    ],
    "dense": [
        *STEM,
        node("Relu", ["a"], ["b"]),
        node("Conv", ["b", "w2", "b2"], ["c"]),
        node("Concat", ["a", "c"], ["d"], axis=1),
        node("BatchNormalization", ["d", "scale", "scale", "scale", "variance"], ["e"]),
        node("Relu", ["e"], ["f"]),
        node("Conv", ["f", "w4"], ["h"]),
        node("Relu", ["h"], ["i"]),
        node("MaxPool", ["i"], ["g"], kernel_shape=[2, 2], strides=[2, 2]),
    ],
    "squeeze and excitation": [
        *STEM,
        node("Relu", ["a"], ["b"]),
        node("GlobalAveragePool", ["b"], ["p"]),
        node("Conv", ["p", "w2", "b2"], ["q"]),
        node("Relu", ["q"], ["r"]),
        node("Conv", ["r", "w2"], ["s"]),
        node("Sigmoid", ["s"], ["t"]),
        node("Mul", ["b", "t"], ["c"]),
        node("Conv", ["c", "w3"], ["d"], strides=[2, 2], **AROUND),
        node("Relu", ["d"], ["g"]),
    ],
    "comparison": [
        *STEM,
        node("Relu", ["a"], ["b"]),
        node("Conv", ["b", "w2", "b2"], ["c"]),
        node("Add", ["c", "b"], ["s"]),
        node("Relu", ["s"], ["r"]),
        node("Greater", ["r", "half"], ["m"]),
        node("Mul", ["r", "half"], ["l"]),
        node("Where", ["m", "r", "l"], ["d"]),
        node("MaxPool", ["d"], ["g"], kernel_shape=[2, 2], strides=[2, 2]),
    ],
    "greatest": [  # of a value and a constant for each channel: a tie is found by equality
        *STEM,
        node("Relu", ["a"], ["b"]),
        node("Conv", ["b", "w2", "b2"], ["c"]),
        node("Add", ["c", "b"], ["s"]),
        node("Relu", ["s"], ["r"]),
        node("Max", ["r", "floor"], ["m"]),
        node("MaxPool", ["m"], ["g"], kernel_shape=[2, 2], strides=[2, 2]),
    ],
    "addend": [  # a product of constants with a value added
        *STEM,
        node("Relu", ["a"], ["b"]),
        node("Conv", ["b", "w2", "b2"], ["c"]),
        node("Add", ["c", "b"], ["s"]),
        node("Relu", ["s"], ["r"]),
        node("GlobalAveragePool", ["r"], ["p"]),
        node("Reshape", ["p", "two"], ["v"]),
        node("Gemm", ["left", "right", "v"], ["q"]),
        node("Relu", ["q"], ["g"]),
    ],
    "product": [  # of two values that may both carry it; later, one may not
        *STEM,
        node("Relu", ["a"], ["b"]),
        node("Conv", ["b", "w2", "b2"], ["c"]),
        node("Add", ["c", "b"], ["s"]),
        node("Relu", ["s"], ["r"]),
        node("Conv", ["x", "w1", "b2"], ["d"], **AROUND),
        node("Relu", ["d"], ["e"]),
        node("Mul", ["r", "e"], ["m"]),
        node("Sigmoid", ["m"], ["f"]),
        node("Add", ["e", "f"], ["h"]),
        node("Add", ["h", "m"], ["i"]),
        node("MaxPool", ["i"], ["g"], kernel_shape=[2, 2], strides=[2, 2]),
    ],
}
FEATURES = {
    "residual": 64,
    "relu6 and a bottleneck": 64,
    "dense": 80,
    "squeeze and excitation": 96,
    "comparison": 64,
    "greatest": 64,
    "addend": 4,
    "product": 64,
}


@pytest.fixture
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    nodes, weights = head("g", FEATURES[request.param])
    batch = 2 if request.param == "addend" else "N"  # as its product of constants has two rows
    shape = (batch, 3, 8, 8)
    return write(
        tmp_path / "net.onnx", [*NETWORKS[request.param], *nodes], WEIGHTS | weights, shape
    )


def products(path: Path) -> int:
    """The multiplications of a run: those of weights alone are done when ONNX Runtime loads."""
    return placement(path, "float32", ["CPUExecutionProvider"]).nodes["Mul"]


def export(source: Path, name: str, **options) -> Path:
    path = source.with_name(f"{name}.onnx")
    onnxplain.export(source, path, method="excitation", temperature=T, **options)
    return path


@pytest.mark.parametrize(
    ("source", "saved"),
    [
        ("residual", 3),
        ("relu6 and a bottleneck", 2),
        ("dense", 4),
        (
            "squeeze and excitation",
            2,
        ),  # the first gate's is made up for: its ReLU's y is multiplied
        ("comparison", 3),
        ("greatest", 1),
        ("addend", 1),
        ("product", 1),
    ],
    indirect=["source"],
)
def test_no_gate_multiplies_by_it(source: Path, saved: int, monkeypatch: pytest.MonkeyPatch):
    folded = export(source, "folded")
    monkeypatch.setattr(backward, "fold_temperatures", lambda *_: None)
    plain = export(source, "plain")
    x = images(2, 3, 8, 8)
    found, expected = (onnxplain.load(path, threads=1)(x, 1) for path in (folded, plain))
    scale = np.abs(expected.logits).max()
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-6 * scale)
    size = np.linalg.norm(expected.pullback)
    assert np.linalg.norm(found.pullback - expected.pullback) <= 2e-6 * size
    assert products(plain) - products(folded) == saved


@pytest.mark.parametrize("source", ["residual"], indirect=True)
def test_a_live_temperature_is_divided_by_at_the_gates(source: Path):
    assert operators(export(source, "live", live_temperature=True))["Div"] >= 3


@pytest.mark.parametrize("source", ["dense"], indirect=True)
def test_a_soft_pool_whose_windows_tile_reads_the_forwards_maxima(source: Path):
    """However the source spells its defaults."""
    model = onnx.load(source)
    (pool,) = (node for node in model.graph.node if node.op_type == "MaxPool")
    pool.attribute.extend(
        onnx.helper.make_attribute(name, value)
        for name, value in {"ceil_mode": 0, "pads": [0] * 4, "dilations": [1, 1]}.items()
    )
    onnx.save(model, source)
    assert operators(export(source, "folded"))["MaxPool"] == 1
