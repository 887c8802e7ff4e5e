"""Patterns: every spelling is recognised, what only looks alike is not, and no value changes."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx_ir.passes import common
from onnxscript import GraphBuilder, OpBuilder
from torch import nn
from torch.nn import functional
from typer.testing import CliRunner

import onnxplain
from onnxplain.cli import app
from onnxplain.export import composites
from onnxplain.export.autodiff import operator_name
from onnxplain.export.canonical.canonicalise import canonicalise
from onnxplain.export.canonical.general import spell_relu
from onnxplain.export.canonical.patterns import recognise
from onnxplain.export.finish import clean
from onnxplain.reference.answers import compare

Spelling = Callable[[OpBuilder, ir.Value], ir.Value]

# ----- what every test does -----


def weight(op: OpBuilder, *shape: int) -> ir.Value:
    """A constant of normal numbers."""
    name = f"w{len(op.builder.graph.initializers)}"
    rng = np.random.default_rng(len(op.builder.graph.initializers))
    return op.builder.initializer(
        ir.tensor(rng.normal(size=shape).astype(np.float32), name=name), name
    )


def graph_of(spell: Spelling, shape: tuple[int, ...]) -> ir.Model:
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 20}, name="forward")
    builder = GraphBuilder(graph)
    image = builder.input("image", ir.DataType.FLOAT, ["N", *shape])
    graph.outputs.append(spell(builder.op, image))
    graph.outputs[0].name = "logits"
    model = ir.Model(graph, ir_version=10)
    common.ShapeInferencePass()(model)
    return model


def run(model: ir.Model, x: np.ndarray) -> list[np.ndarray]:
    proto = ir.to_proto(model)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"image": x})


def operators(spell: Spelling, shape: tuple[int, ...] = (4, 6, 6)) -> Counter[str]:
    """The operators after recognition; shapes are still known, values the same, nothing unused."""
    model = graph_of(spell, shape)
    x = np.random.default_rng(0).normal(size=[2, *shape]).astype(np.float32) * 2
    (before,) = run(model, x)
    recognise(model)
    found = Counter(operator_name(node) for node in model.graph)
    assert all(node.outputs[0].shape is not None for node in model.graph)
    assert all(node.outputs[0].uses() for node in model.graph if node.outputs[0].name != "logits")
    np.testing.assert_allclose(*run(model, x), before, rtol=1e-5, atol=1e-5, err_msg="as functions")
    clean(model)
    assert not model.functions
    assert set(model.graph.opset_imports) == {""}
    np.testing.assert_allclose(*run(model, x), before, rtol=1e-5, atol=1e-5, err_msg="inlined")
    return found


# ----- activations -----


def inner(op: OpBuilder, x: ir.Value, cube: ir.Value, c: float = 0.044715) -> ir.Value:
    return op.Tanh(op.Mul(op.Add(x, op.Mul(cube, c)), math.sqrt(2 / math.pi)))


ROOT = math.sqrt(2)
ZERO = np.zeros([1, 5, 6, 6], np.float32)
ACTIVATIONS: dict[str, list[Spelling]] = {
    "Relu": [
        lambda op, x: op.Mul(x, op.Cast(op.Greater(x, 0.0), to=ir.DataType.FLOAT)),
        lambda op, x: op.Mul(op.Cast(op.Not(op.Less(x, 0.0)), to=ir.DataType.FLOAT), x),
        lambda op, x: op.Where(op.Greater(x, 0.0), x, op.Constant(value=ir.tensor(ZERO))),
        lambda op, x: op.Where(op.Greater(x, 0.0), x, op.Expand(0.0, op.Shape(x))),
        lambda op, x: op.Where(op.LessOrEqual(x, 0.0), op.ConstantOfShape(op.Shape(x)), x),
        lambda op, x: op.Max(op.Add(x, 0.0), op.Constant(value=ir.tensor(ZERO))),
        lambda op, x: op.Mul(op.Add(x, op.Abs(x)), 0.5),
        lambda op, x: op.Neg(op.Min(op.Neg(x), 0.0)),
        lambda op, x: op.Mul(x, op.Relu(op.Sign(x))),
        lambda op, x: op.Sub(x, op.Min(x, 0.0)),
        lambda op, x: op.LeakyRelu(x, alpha=0.0),
        lambda op, x: op.ThresholdedRelu(x, alpha=0.0),
        lambda op, x: op.Max(x, op.Constant(value=ir.tensor(ZERO))),
        lambda op, x: op.Max(op.Constant(value=ir.tensor(ZERO)), x),
    ],
    "Gelu": [
        lambda op, x: op.Mul(op.Mul(0.5, x), op.Add(1.0, op.Erf(op.Div(x, ROOT)))),
        lambda op, x: op.Mul(op.Mul(x, op.Add(op.Erf(op.Div(x, ROOT)), 1.0)), 0.5),
        lambda op, x: op.Mul(op.Mul(op.Add(op.Erf(op.Mul(x, 1 / ROOT)), 1.0), 0.5), x),
        lambda op, x: op.Mul(x, op.Add(op.Mul(op.Erf(op.Mul(1 / ROOT, x)), 0.5), 0.5)),
        lambda op, x: op.Div(op.Mul(op.Add(1.0, op.Erf(op.Div(x, ROOT))), x), 2.0),
        lambda op, x: op.Mul(
            op.Mul(x, 0.5), op.Add(inner(op, x, op.Pow(x, op.Constant(value_float=3.0))), 1.0)
        ),
        lambda op, x: op.Mul(op.Mul(op.Add(1.0, inner(op, x, op.Mul(op.Mul(x, x), x))), x), 0.5),
        lambda op, x: op.Mul(
            x,
            op.Mul(
                op.Add(
                    op.Tanh(
                        op.Mul(
                            op.Mul(x, 0.7978845608),
                            op.Add(op.Mul(op.Mul(x, x), 0.044715), 1.0),
                        )
                    ),
                    1.0,
                ),
                0.5,
            ),
        ),
    ],
    "onnxplain::Swish": [
        lambda op, x: op.Mul(x, op.Sigmoid(x)),
        lambda op, x: op.Mul(op.Sigmoid(x), x),
        lambda op, x: op.Mul(op.Sigmoid(op.Mul(x, 1.702)), x),
        lambda op, x: op.Mul(x, op.Sigmoid(op.Div(x, 0.7))),
        lambda op, x: op.Div(x, op.Add(op.Exp(op.Neg(x)), 1.0)),
        lambda op, x: op.Mul(x, op.Add(op.Mul(op.Tanh(op.Mul(x, 0.5)), 0.5), 0.5)),
    ],
    "HardSwish": [
        lambda op, x: op.Mul(x, op.HardSigmoid(x, alpha=1 / 6, beta=0.5)),
        lambda op, x: op.Div(op.Mul(x, op.Clip(op.Add(x, 3.0), 0.0, 6.0)), 6.0),
        lambda op, x: op.Mul(x, op.Div(op.Clip(op.Add(3.0, x), 0.0, 6.0), 6.0)),
        lambda op, x: op.Mul(op.Mul(op.Clip(op.Add(x, 3.0), 0.0, 6.0), 1 / 6), x),
        lambda op, x: op.Mul(x, op.Mul(op.Min(op.Relu(op.Add(x, 3.0)), 6.0), 1 / 6)),
        lambda op, x: op.Mul(op.Clip(op.Add(op.Div(x, 6.0), 0.5), 0.0, 1.0), x),
    ],
    "HardSigmoid": [
        lambda op, x: op.Div(op.Clip(op.Add(x, 3.0), 0.0, 6.0), 6.0),
        lambda op, x: op.Mul(op.Clip(op.Add(x, 3.0), 0.0, 6.0), 1 / 6),
        lambda op, x: op.Clip(op.Add(op.Mul(x, 0.2), 0.5), 0.0, 1.0),
    ],
    "Clip": [  # ReLU6
        lambda op, x: op.Min(op.Relu(x), 6.0),
        lambda op, x: op.Min(6.0, op.Max(x, 0.0)),
        lambda op, x: op.Max(op.Min(x, 6.0), 0.0),
        lambda op, x: op.Min(op.Clip(x, 0.0), 6.0),
        lambda op, x: op.Clip(op.Relu(x), None, 6.0),
    ],
    "Mish": [
        lambda op, x: op.Mul(x, op.Tanh(op.Softplus(x))),
        lambda op, x: op.Mul(op.Tanh(op.Log(op.Add(op.Exp(x), 1.0))), x),
    ],
    "Sigmoid": [
        lambda op, x: op.Reciprocal(op.Add(op.Exp(op.Neg(x)), 1.0)),
        lambda op, x: op.Div(1.0, op.Add(1.0, op.Exp(op.Neg(x)))),
    ],
    "Softplus": [lambda op, x: op.Log(op.Add(op.Exp(x), 1.0))],
    "LeakyRelu": [
        lambda op, x: op.Max(x, op.Mul(x, 0.1)),
        lambda op, x: op.Where(op.Greater(x, 0.0), x, op.Mul(x, 0.1)),
    ],
    "Elu": [lambda op, x: op.Where(op.Greater(x, 0.0), x, op.Sub(op.Exp(x), 1.0))],
}


@pytest.mark.parametrize(
    ("operator", "spell"), [(name, spell) for name, every in ACTIVATIONS.items() for spell in every]
)
def test_an_activation_is_recognised_however_it_is_spelled(operator: str, spell: Spelling):
    def layers(op: OpBuilder, x: ir.Value) -> ir.Value:
        return op.Relu(
            op.Conv(spell(op, op.Conv(x, weight(op, 5, 4, 1, 1))), weight(op, 2, 5, 1, 1))
        )

    assert operators(layers) == Counter([operator, "Conv", "Conv", "Relu"])


def test_the_two_gelus_and_a_swish_keep_what_tells_them_apart():
    def attributes(spell: Spelling) -> ir.Node:
        model = graph_of(spell, (3,))
        recognise(model)
        (node,) = model.graph
        return node

    by_erf, by_tanh = (attributes(ACTIVATIONS["Gelu"][i]) for i in (0, 6))
    assert by_erf.attributes.get_string("approximate", "none") == "none"
    assert by_tanh.attributes.get_string("approximate") == "tanh"
    quick = attributes(ACTIVATIONS["onnxplain::Swish"][2])
    assert quick.attributes.get_float("alpha") == pytest.approx(1.702, rel=1e-6)
    keras = attributes(ACTIVATIONS["HardSigmoid"][2])
    assert keras.attributes.get_float("alpha") == pytest.approx(0.2, rel=1e-6)


@pytest.mark.parametrize(
    "spell",
    [
        lambda op, x: op.Mul(op.Mul(0.5, x), op.Add(1.0, op.Erf(op.Div(x, 1.5)))),
        lambda op, x: op.Mul(op.Mul(0.6, x), op.Add(1.0, op.Erf(op.Div(x, ROOT)))),
        lambda op, x: op.Mul(
            op.Mul(x, 0.5), op.Add(inner(op, x, op.Mul(op.Mul(x, x), x), 0.04), 1.0)
        ),
        lambda op, x: op.Mul(x, op.Sigmoid(op.Add(x, 1.0))),
        lambda op, x: op.Mul(x, op.Sigmoid(op.Neg(x))),
        lambda op, x: op.Div(op.Mul(x, op.Clip(op.Add(x, 3.0), 0.0, 5.0)), 6.0),
        lambda op, x: op.Mul(x, op.HardSigmoid(x, alpha=0.2)),
        lambda op, x: op.Min(op.Max(x, 1e-6), 20.0),
        lambda op, x: op.Mul(x, op.Tanh(op.Exp(x))),
        lambda op, x: op.Clip(op.Mul(x, 0.5), 0.0, 1.0),
    ],
)
def test_other_constants_make_no_activation(spell: Spelling):
    nodes = Counter(operator_name(node) for node in graph_of(spell, (4, 2, 2)).graph)
    found = operators(spell, (4, 2, 2))
    gates = {"onnxplain::SigmoidGate": "Sigmoid", "onnxplain::HardSigmoidGate": "HardSigmoid"}
    assert Counter({gates.get(name, name): n for name, n in found.items()}) == nodes


def test_a_relu_with_a_cap_is_a_relu():
    assert operators(lambda op, x: op.Min(op.Relu(x), 20.0), (4, 2)) == {"Relu": 1, "Min": 1}


def test_a_relu_of_what_cannot_be_negative_is_none():
    """As PyTorch's LPPool2d has it; one after a pool of another stays, as PyTorch keeps it."""
    absolute = graph_of(lambda op, x: op.Neg(op.Relu(op.Abs(x))), (3,))
    recognise(absolute)
    assert [node.op_type for node in absolute.graph] == ["Abs", "Neg"]
    after = graph_of(
        lambda op, x: op.Neg(op.Relu(op.MaxPool(op.Relu(x), kernel_shape=[2, 2]))), (3, 4, 4)
    )
    recognise(after)
    assert [node.op_type for node in after.graph] == ["Relu", "MaxPool", "Relu", "Neg"]


@pytest.mark.parametrize("top", [float("inf"), float(np.finfo(np.float32).max)])
def test_a_clip_from_zero_up_to_any_number_is_a_relu(top: float):
    model = graph_of(lambda op, x: op.Clip(x, 0.0, top), (3,))
    spell_relu(model)
    assert [node.op_type for node in model.graph] == ["Relu"]


@pytest.mark.parametrize("operator", ["Max", "Clip"])
def test_what_limits_whole_numbers_is_no_relu(operator: str):
    """As indices are clamped: ONNX Runtime has no Relu of int64."""

    def spell(op: OpBuilder, x: ir.Value) -> ir.Value:
        whole = op.Cast(x, to=ir.DataType.INT64)
        limited = getattr(op, operator)(
            whole, op.builder.initializer(ir.tensor(np.array(0)), "zero")
        )
        return op.Cast(limited, to=ir.DataType.FLOAT)

    model = graph_of(spell, (3,))
    spell_relu(model)
    recognise(model)
    assert [node.op_type for node in model.graph] == ["Cast", operator, "Cast"]


def test_an_activation_of_a_value_that_it_shares_nothing_else_of():
    """Where the erf is used elsewhere too, one Gelu more would compute it twice."""

    def shared(op: OpBuilder, x: ir.Value) -> ir.Value:
        e = op.Erf(op.Div(x, ROOT))
        return op.Add(op.Mul(op.Mul(0.5, x), op.Add(1.0, e)), e)

    assert operators(shared)["Gelu"] == 0


def test_a_swish_shares_its_sigmoid_with_others():
    def shared(op: OpBuilder, x: ir.Value) -> ir.Value:
        s = op.Sigmoid(x)
        return op.Relu(op.Add(op.Mul(x, s), s))

    assert operators(shared)["onnxplain::Swish"] == 1
    model = graph_of(shared, (3,))
    recognise(model)
    clean(model)
    assert [node.op_type for node in model.graph].count("Sigmoid") == 1


def test_an_activation_of_half_precision_has_rounder_constants():
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 20}, name="half")
    builder = GraphBuilder(graph)
    x = builder.input("image", ir.DataType.FLOAT16, ["N", 8])
    graph.outputs.append(ACTIVATIONS["Gelu"][0](builder.op, x))
    graph.outputs[0].name = "logits"
    model = ir.Model(graph, ir_version=10)
    common.ShapeInferencePass()(model)
    assert recognise(model, was_half=True) == {"GELU": 1}


@pytest.mark.parametrize("threshold", [0.1, 0.3, 2.6])
def test_a_threshold_between_the_numbers_tried_is_no_relu(threshold):
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 20}, name="threshold")
    builder = GraphBuilder(graph)
    x = builder.input("image", ir.DataType.FLOAT, ["N", 8])
    y = builder.op.Where(builder.op.Greater(x, threshold), x, 0.0)
    graph.outputs.append(builder.op.Relu(y))
    graph.outputs[0].name = "logits"
    model = ir.Model(graph, ir_version=10)
    common.ShapeInferencePass()(model)
    recognise(model)
    assert [node.op_type for node in model.graph] == ["Greater", "Where", "Relu"]


@pytest.mark.parametrize("threshold", [5e-4, 0.03, 0.37])
def test_a_threshold_that_is_an_attribute_or_of_a_scaled_input_is_no_relu(threshold):
    def attribute(op: OpBuilder, x: ir.Value) -> ir.Value:
        return op.ThresholdedRelu(x, alpha=threshold)

    def scaled(op: OpBuilder, x: ir.Value) -> ir.Value:
        return op.Where(op.Greater(op.Mul(x, 10.0), 10 * threshold), x, 0.0)

    for spell in (attribute, scaled):
        model = graph_of(spell, (8,))
        assert "Relu" not in recognise(model)
        assert "Relu" not in [node.op_type for node in model.graph]


# ----- normalisations -----

Root = Callable[[OpBuilder, ir.Value, ir.Value], ir.Value]
ROOTS: dict[str, Root] = {
    "d / sqrt": lambda op, d, v: op.Div(d, op.Sqrt(v)),
    "d · reciprocal sqrt": lambda op, d, v: op.Mul(d, op.Reciprocal(op.Sqrt(v))),
    "1/sqrt · d": lambda op, d, v: op.Mul(op.Div(1.0, op.Sqrt(v)), d),
    "pow −½": lambda op, d, v: op.Mul(d, op.Pow(v, -0.5)),
    "d / pow ½": lambda op, d, v: op.Div(d, op.Pow(v, 0.5)),
}


def square(op: OpBuilder, d: ir.Value) -> ir.Value:
    return op.Mul(d, d)


def layer_norm(
    op: OpBuilder,
    x: ir.Value,
    axes: list[int],
    root: Root = ROOTS["d / sqrt"],
    squared: Callable[[OpBuilder, ir.Value], ir.Value] = square,
    epsilon: float = 1e-5,
) -> ir.Value:
    d = op.Sub(x, op.ReduceMean(x, axes, keepdims=1))
    return root(op, d, op.Add(op.ReduceMean(squared(op, d), axes, keepdims=1), epsilon))


def rms_norm(
    op: OpBuilder, x: ir.Value, axes: list[int], root: Root = ROOTS["d · reciprocal sqrt"]
) -> ir.Value:
    return root(op, x, op.Add(op.ReduceMean(op.Pow(x, 2.0), axes, keepdims=1), 1e-6))


@pytest.mark.parametrize("root", ROOTS.values(), ids=ROOTS)
@pytest.mark.parametrize("affine", [False, True])
def test_layer_norm_from_its_reductions(root: Root, affine: bool):
    def spell(op: OpBuilder, x: ir.Value) -> ir.Value:
        y = layer_norm(op, x, [-1], root, lambda op, d: op.Pow(d, 2.0))
        return op.Add(op.Mul(y, weight(op, 8)), weight(op, 8)) if affine else y

    assert operators(spell, (5, 8)) == {"LayerNormalization": 1}


@pytest.mark.parametrize("root", ROOTS.values(), ids=ROOTS)
@pytest.mark.parametrize("affine", [False, True])
def test_rms_norm_from_its_reductions(root: Root, affine: bool):
    def spell(op: OpBuilder, x: ir.Value) -> ir.Value:
        y = rms_norm(op, x, [2], root)
        return op.Mul(weight(op, 8), y) if affine else y

    assert operators(spell, (5, 8)) == {"onnxplain::RMSNormalization": 1}


@pytest.mark.parametrize("floor", ["Clip", "Max"])
@pytest.mark.parametrize("expanded", [False, True])
def test_l2_norm_of_functional_normalize(floor: str, expanded: bool):
    """As torch exports it, and with the norm spelled out and broadcast."""

    def spell(op: OpBuilder, x: ir.Value) -> ir.Value:
        norm = op.Sqrt(op.ReduceSum(op.Mul(x, x), [1], keepdims=1))
        if not expanded:
            norm = op.ReduceL2(x, [-2], keepdims=1)
        norm = op.Clip(norm, 1e-12) if floor == "Clip" else op.Max(norm, 1e-12)
        return op.Div(x, op.Expand(norm, op.Shape(x)) if expanded else norm)

    assert operators(spell, (5, 8)) == {"onnxplain::L2Normalization": 1}


def test_dividing_by_another_ones_norm_is_no_l2_norm():
    def spell(op: OpBuilder, x: ir.Value) -> ir.Value:
        return op.Div(op.Relu(x), op.Max(op.ReduceL2(x, [-1], keepdims=1), 1e-12))

    assert "onnxplain::L2Normalization" not in operators(spell, (5, 8))


@pytest.mark.parametrize(
    ("axes", "shape"), [([-1], (8,)), ([-2, -1], (5, 8)), ([2, 3], (5, 8)), ([1, 2, 3], (2, 5, 8))]
)
def test_layer_norm_over_any_trailing_axes(axes: list[int], shape: tuple[int, ...]):
    def spell(op: OpBuilder, x: ir.Value) -> ir.Value:
        return op.Add(op.Mul(weight(op, *shape), layer_norm(op, x, axes)), weight(op, *shape))

    assert operators(spell, (2, 5, 8)) == {"LayerNormalization": 1}


def test_an_affine_part_along_other_axes_stays_outside():
    """InstanceNorm is a LayerNorm over space, with γ and β along the channels."""

    def spell(op: OpBuilder, x: ir.Value) -> ir.Value:
        return op.Add(op.Mul(layer_norm(op, x, [2, 3]), weight(op, 4, 1, 1)), weight(op, 4, 1, 1))

    assert operators(spell) == {"LayerNormalization": 1, "Mul": 1, "Add": 1}


@pytest.mark.parametrize("affine", [False, True])
def test_layer_norm_of_channels_first_is_one_of_the_last_axis_between_transpositions(affine: bool):
    def spell(op: OpBuilder, x: ir.Value) -> ir.Value:
        y = layer_norm(op, x, [1])
        return op.Add(op.Mul(weight(op, 4, 1, 1), y), weight(op, 1, 4, 1, 1)) if affine else y

    assert operators(spell) == {"Transpose": 2, "LayerNormalization": 1}


def test_rms_norm_of_channels_first():
    def spell(op: OpBuilder, x: ir.Value) -> ir.Value:
        return op.Mul(rms_norm(op, x, [1]), weight(op, 4, 1, 1))

    assert operators(spell) == {"Transpose": 2, "onnxplain::RMSNormalization": 1}


def by_variance(op: OpBuilder, x: ir.Value) -> ir.Value:
    """As PyTorch's exporter writes x.var(1, unbiased=False, keepdim=True)."""
    d = op.Sub(x, op.ReduceMean(x, [1], keepdims=1))
    variance = op.Reshape(op.ReduceMean(op.Mul(d, d), [1], keepdims=0), [-1, 1, 6, 6])
    return op.Mul(d, op.Reciprocal(op.Sqrt(op.Add(variance, 1e-6))))


def axes_put_back_late(op: OpBuilder, x: ir.Value) -> ir.Value:
    d = op.Sub(x, op.Unsqueeze(op.Div(op.ReduceSum(x, [1], keepdims=0), 4.0), [1]))
    variance = op.ReduceMean(op.Pow(d, 2.0), [1], keepdims=0)
    return op.Div(d, op.Unsqueeze(op.Sqrt(op.Add(variance, 1e-6)), [1]))


@pytest.mark.parametrize("spell", [by_variance, axes_put_back_late])
def test_layer_norm_whose_statistics_lose_their_axes_on_the_way(spell: Spelling):
    assert operators(spell) == {"Transpose": 2, "LayerNormalization": 1}


def test_a_reduction_is_left_alone_where_other_axes_are_put_back_or_others_use_it():
    def elsewhere(op: OpBuilder, x: ir.Value) -> ir.Value:
        return op.Mul(x, op.Unsqueeze(op.ReduceMean(x, [3], keepdims=0), [2]))

    def shared(op: OpBuilder, x: ir.Value) -> ir.Value:
        mean = op.ReduceMean(x, [3], keepdims=0)
        return op.Add(op.ReduceSum(op.Mul(x, op.Unsqueeze(mean, [3])), [3], keepdims=0), mean)

    assert operators(elsewhere)["Unsqueeze"] == 1
    assert operators(shared)["Unsqueeze"] == 1


@pytest.mark.parametrize("axes", [[1, 2], [1, 3], [2]], ids=str)
def test_a_norm_over_any_axes_is_one_of_trailing_axes_between_transpositions(axes: list[int]):
    """[1, 2] of NHWC is InstanceNorm as TensorFlow writes it."""
    shape = [size if axis + 1 in axes else 1 for axis, size in enumerate((4, 5, 6))]

    def spell(op: OpBuilder, x: ir.Value) -> ir.Value:
        y = op.Add(op.Mul(weight(op, *shape), layer_norm(op, x, axes)), weight(op, *shape))
        return op.Mul(rms_norm(op, y, axes), weight(op, *shape))

    assert operators(spell, (4, 5, 6)) == {
        "Transpose": 4,
        "LayerNormalization": 1,
        "onnxplain::RMSNormalization": 1,
    }


def tensorflow(op: OpBuilder, x: ir.Value) -> ir.Value:
    """x · s + (β − mean · s), the variance as mean(x²) − mean², from below at 0."""
    mean = op.ReduceMean(x, [-1], keepdims=1)
    variance = op.Sub(op.ReduceMean(op.Mul(x, x), [-1], keepdims=1), op.Mul(mean, mean))
    slope = op.Reciprocal(op.Sqrt(op.Add(op.Max(variance, 0.0), 1e-3)))
    slope = op.Mul(slope, weight(op, 8))
    return op.Add(op.Mul(x, slope), op.Sub(weight(op, 8), op.Mul(mean, slope)))


def sums(op: OpBuilder, x: ir.Value) -> ir.Value:
    """Means as sums over a count; γ before the division."""
    d = op.Sub(x, op.Div(op.ReduceSum(x, [-1], keepdims=1), 8.0))
    variance = op.Mul(op.ReduceSum(op.Mul(d, d), [-1], keepdims=1), 1 / 8)
    return op.Div(op.Mul(weight(op, 8), d), op.Sqrt(op.Add(variance, 1e-5)))


@pytest.mark.parametrize("spell", [tensorflow, sums])
def test_layer_norm_as_other_frameworks_write_it(spell: Spelling):
    assert operators(spell, (5, 8)) == {"LayerNormalization": 1}


def test_rms_norm_with_its_weight_on_the_reciprocal():
    def spell(op: OpBuilder, x: ir.Value) -> ir.Value:
        mean = op.ReduceMean(op.Mul(x, x), [-1], keepdims=1)
        return op.Mul(x, op.Mul(op.Reciprocal(op.Sqrt(op.Add(mean, 1e-6))), weight(op, 8)))

    assert operators(spell, (5, 8)) == {"onnxplain::RMSNormalization": 1}


def test_an_rms_norm_of_a_scaled_value():
    """A layer scale before it is no part of its weight."""

    def spell(op: OpBuilder, x: ir.Value) -> ir.Value:
        x = op.Mul(x, weight(op, 8))
        return op.Add(x, op.Mul(rms_norm(op, x, [-1]), weight(op, 8)))

    found = operators(spell, (5, 8))
    assert found == {"Mul": 1, "onnxplain::RMSNormalization": 1, "Add": 1}


def epsilon_outside(op: OpBuilder, x: ir.Value) -> ir.Value:
    d = op.Sub(x, op.ReduceMean(x, [-1], keepdims=1))
    return op.Div(d, op.Add(op.Sqrt(op.ReduceMean(op.Mul(d, d), [-1], keepdims=1)), 1e-5))


def unbiased(op: OpBuilder, x: ir.Value) -> ir.Value:
    d = op.Sub(x, op.ReduceMean(x, [-1], keepdims=1))
    total = op.ReduceSum(op.Mul(d, d), [-1], keepdims=1)
    return op.Div(d, op.Sqrt(op.Add(op.Div(total, 7.0), 1e-5)))


def other_axes(op: OpBuilder, x: ir.Value) -> ir.Value:
    d = op.Sub(x, op.ReduceMean(x, [-2], keepdims=1))
    return op.Div(d, op.Sqrt(op.Add(op.ReduceMean(op.Mul(d, d), [-1], keepdims=1), 1e-5)))


def multiplied(op: OpBuilder, x: ir.Value) -> ir.Value:
    return layer_norm(op, x, [-1], lambda op, d, v: op.Mul(d, op.Sqrt(v)))


def variance_put_out(op: OpBuilder, x: ir.Value) -> ir.Value:
    d = op.Sub(x, op.ReduceMean(x, [-1], keepdims=1))
    variance = op.ReduceMean(op.Mul(d, d), [-1], keepdims=1)
    return op.Add(op.Div(d, op.Sqrt(op.Add(variance, 1e-5))), variance)


@pytest.mark.parametrize("spell", [epsilon_outside, unbiased, multiplied, variance_put_out])
def test_what_only_looks_like_a_layer_norm(spell: Spelling):
    found = operators(spell, (5, 8))
    assert found["LayerNormalization"] == found["onnxplain::RMSNormalization"] == 0


def test_of_a_deviation_along_other_axes_the_rms_norm_remains():
    assert operators(other_axes, (5, 8))["onnxplain::RMSNormalization"] == 1


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("by", ["ReduceL2", "Sqrt"])
def test_global_response_normalisation(last: bool, by: str):
    space, channel, affine = ([1, 2], [-1], (6,)) if last else ([2, 3], [1], (4, 1, 1))

    def spell(op: OpBuilder, x: ir.Value) -> ir.Value:
        if by == "ReduceL2":
            n = op.ReduceL2(x, space, keepdims=1)
        else:
            n = op.Sqrt(op.ReduceSum(op.Pow(x, 2.0), space, keepdims=1))
        u = op.Div(n, op.Add(op.ReduceMean(n, channel, keepdims=1), 1e-6))
        y = op.Mul(op.Mul(weight(op, *affine), op.Mul(x, u)), 1.0)  # TorchScript's addcmul
        return op.Add(x, op.Add(y, weight(op, *affine)))

    assert operators(spell) == {"onnxplain::GlobalResponseNormalization": 1}


# ----- softmax, attention, gates -----

N, HEADS, TOKENS, WIDTH = 0, 2, 6, 4  # 0: as it is


def heads(op: OpBuilder, x: ir.Value) -> ir.Value:
    """[N, tokens, width] → [N, heads, tokens, width/heads], through a linear layer."""
    y = op.MatMul(x, weight(op, WIDTH, WIDTH))
    return op.Transpose(op.Reshape(y, [N, -1, HEADS, WIDTH // HEADS]), perm=[0, 2, 1, 3])


def attention(
    op: OpBuilder,
    x: ir.Value,
    scores: Callable[[OpBuilder, ir.Value], ir.Value] = lambda op, a: op.Mul(a, 0.7),
    weights: Callable[[OpBuilder, ir.Value], ir.Value] = lambda op, a: a,
    memory: Callable[[OpBuilder, ir.Value], ir.Value] = lambda op, x: x,
) -> ir.Value:
    m = memory(op, x)
    q, k, v = heads(op, x), heads(op, m), heads(op, m)
    a = op.MatMul(q, op.Transpose(k, perm=[0, 1, 3, 2]))
    out = op.MatMul(weights(op, op.Softmax(scores(op, a), axis=-1)), v)
    return op.Reshape(op.Transpose(out, perm=[0, 2, 1, 3]), [N, -1, WIDTH])


def masked(op: OpBuilder, a: ir.Value) -> ir.Value:
    mask = op.builder.initializer(ir.tensor(np.tril(np.ones([6, 6], bool)), name="mask"), "mask")
    return op.Where(mask, a, float(np.finfo(np.float32).min))


def guarded(op: OpBuilder, a: ir.Value) -> ir.Value:
    """PyTorch's exporter guards masked attention against rows of −∞."""
    return op.Where(op.IsNaN(a), 0.0, a)


def talking(op: OpBuilder, a: ir.Value) -> ir.Value:
    """Talking heads: a linear map of the heads, with a bias."""
    mixed = op.MatMul(op.Transpose(a, perm=[0, 2, 3, 1]), weight(op, HEADS, HEADS))
    return op.Transpose(op.Add(mixed, weight(op, HEADS)), perm=[0, 3, 1, 2])


def convolved(op: OpBuilder, a: ir.Value) -> ir.Value:
    return op.Conv(a, weight(op, HEADS, HEADS, 1, 1), weight(op, HEADS))


def mixed_with_constant(op: OpBuilder, a: ir.Value) -> ir.Value:
    return op.Add(op.Mul(a, 0.5), weight(op, HEADS, 6, 6))


def renormalised(op: OpBuilder, a: ir.Value) -> ir.Value:
    """ConViT: divided by their own sum once they are mixed with weights of the positions."""
    a = mixed_with_constant(op, a)
    return op.Div(a, op.Unsqueeze(op.ReduceSum(a, [-1], keepdims=0), [-1]))


def renormalised_above_zero(op: OpBuilder, a: ir.Value) -> ir.Value:
    return op.Div(a, op.Add(1e-9, op.ReduceSum(a, [-2], keepdims=1)))


def fewer_tokens(op: OpBuilder, x: ir.Value) -> ir.Value:
    """PVT's linear spatial reduction: keys and values of a pooled picture."""
    image = op.Reshape(op.Transpose(x, perm=[0, 2, 1]), [N, WIDTH, 2, 3])
    pooled = op.AveragePool(image, kernel_shape=[2, 3])
    return op.Transpose(op.Reshape(pooled, [N, WIDTH, 1]), perm=[0, 2, 1])


ATTENTIONS: dict[str, Spelling] = {
    "scaled": attention,
    "divided": lambda op, x: attention(op, x, lambda op, a: op.Div(a, 1.4)),
    "bias": lambda op, x: attention(op, x, lambda op, a: op.Add(a, weight(op, HEADS, 6, 6))),
    "mask": lambda op, x: attention(op, x, masked, guarded),
    "talking heads": lambda op, x: attention(op, x, talking, talking),
    "convolved heads": lambda op, x: attention(op, x, weights=convolved),
    "spatial reduction": lambda op, x: attention(op, x, memory=fewer_tokens),
    "dropout": lambda op, x: attention(op, x, weights=lambda op, a: op.Dropout(a)),
    "mixed with a constant": lambda op, x: attention(op, x, weights=mixed_with_constant),
    "renormalised": lambda op, x: attention(op, x, weights=renormalised),
    "renormalised, above zero": lambda op, x: attention(op, x, weights=renormalised_above_zero),
}


@pytest.mark.parametrize("spell", ATTENTIONS.values(), ids=ATTENTIONS)
def test_attention_is_recognised(spell: Spelling):
    found = operators(spell, (TOKENS, WIDTH))
    assert found["onnxplain::AttentionWeights"] == 1
    assert found["Softmax"] == 0


def test_attention_in_windows():
    """Swin: the picture is cut into windows, which join the batch, with a bias and a mask each."""

    def spell(op: OpBuilder, x: ir.Value) -> ir.Value:
        cut = op.Transpose(op.Reshape(x, [N, 2, 3, 2, 3, WIDTH]), perm=[0, 1, 3, 2, 4, 5])
        tokens = op.Reshape(cut, [-1, 9, WIDTH])
        bias = weight(op, HEADS, 9, 9)

        def shifted(op: OpBuilder, a: ir.Value) -> ir.Value:
            by_window = op.Reshape(op.Add(a, bias), [-1, 4, HEADS, 9, 9])
            return op.Reshape(op.Add(by_window, weight(op, 4, 1, 9, 9)), [-1, HEADS, 9, 9])

        return attention(op, tokens, shifted)

    model = graph_of(spell, (6, 6, WIDTH))
    assert recognise(model) == {"attention": 1}


def test_attention_of_many_queries_to_one_key_head():
    def spell(op: OpBuilder, x: ir.Value) -> ir.Value:
        q = heads(op, x)
        k = op.Unsqueeze(op.MatMul(x, weight(op, WIDTH, 2)), [1])
        v = op.Unsqueeze(op.MatMul(x, weight(op, WIDTH, 2)), [1])
        a = op.Einsum(q, k, equation="bhqd,bokd->bhqk")
        return op.Einsum(op.Softmax(a), v, equation="bhqk,bokd->bhqd")

    assert operators(spell, (TOKENS, WIDTH))["onnxplain::AttentionWeights"] == 1


def test_split_attention_weights_branches():
    """ResNeSt: a softmax over the branches multiplies them, broadcast over space."""

    def spell(op: OpBuilder, x: ir.Value) -> ir.Value:
        pooled = op.ReduceMean(x, [2, 3], keepdims=1)
        a = op.Softmax(op.Reshape(op.Conv(pooled, weight(op, 4, 4, 1, 1)), [N, 2, 2]), axis=1)
        weighted = op.Mul(op.Reshape(x, [N, 2, 2, 6, 6]), op.Unsqueeze(a, [-1, -2]))
        return op.ReduceSum(weighted, [1], keepdims=0)

    assert operators(spell)["onnxplain::AttentionWeights"] == 1


@pytest.mark.parametrize("shifted", [True, False])
def test_softmax_spelled_with_exponentials(shifted: bool):
    def exponentials(op: OpBuilder, a: ir.Value) -> ir.Value:
        e = op.Exp(op.Sub(a, op.ReduceMax(a, [-1], keepdims=1)) if shifted else a)
        return op.Div(e, op.ReduceSum(e, [-1], keepdims=1))

    def spell(op: OpBuilder, x: ir.Value) -> ir.Value:
        a = exponentials(op, op.MatMul(x, weight(op, WIDTH, TOKENS)))
        return op.Relu(op.Add(op.MatMul(a, x), op.MatMul(op.MatMul(x, weight(op, 4, 6)), x)))

    assert operators(spell, (TOKENS, WIDTH))["onnxplain::AttentionWeights"] == 1


def test_a_softmax_that_is_no_weight_stays_a_softmax():
    """Its result is added to the values; or squashed; or is what the network puts out."""

    def added(op: OpBuilder, x: ir.Value) -> ir.Value:
        return op.Relu(op.Add(op.Softmax(x), x))

    def squashed(op: OpBuilder, x: ir.Value) -> ir.Value:
        return op.MatMul(op.Relu(op.Sub(op.Softmax(op.MatMul(x, weight(op, 4, 6))), 0.1)), x)

    def output(op: OpBuilder, x: ir.Value) -> ir.Value:
        return op.Softmax(op.MatMul(x, weight(op, 4, 6)))

    def only_constants(op: OpBuilder, x: ir.Value) -> ir.Value:
        return op.Relu(op.MatMul(op.Softmax(x), weight(op, 4, 6)))

    def divided(op: OpBuilder, x: ir.Value) -> ir.Value:
        a = op.Softmax(op.MatMul(x, weight(op, 4, 6)))
        return op.MatMul(op.Div(a, op.ReduceSum(op.Exp(x), [-1], keepdims=1)), x)

    def divisor(op: OpBuilder, x: ir.Value) -> ir.Value:
        a = op.Softmax(op.MatMul(x, weight(op, 4, 4)))
        return op.Div(op.Exp(x), op.ReduceSum(a, [-1], keepdims=1))

    for spell in (added, squashed, output, only_constants, divided, divisor):
        assert operators(spell, (TOKENS, WIDTH))["Softmax"] == 1


def squeeze_excite(op: OpBuilder, x: ir.Value, gate: Spelling) -> ir.Value:
    hidden = op.Relu(op.Conv(op.GlobalAveragePool(x), weight(op, 2, 4, 1, 1)))
    return op.Mul(x, gate(op, op.Conv(hidden, weight(op, 4, 2, 1, 1))))


def test_squeeze_and_excitation_has_a_gate():
    def spell(op: OpBuilder, x: ir.Value) -> ir.Value:
        x = squeeze_excite(op, x, lambda op, z: op.Sigmoid(z))
        x = squeeze_excite(op, x, lambda op, z: op.HardSigmoid(z, alpha=0.2))
        spelled = ACTIVATIONS["HardSigmoid"][0]
        return squeeze_excite(op, x, spelled)

    found = operators(spell)
    assert found["onnxplain::SigmoidGate"] == 1
    assert found["onnxplain::HardSigmoidGate"] == 2


def test_two_gates_may_multiply_each_other_and_then_the_picture():
    def spell(op: OpBuilder, x: ir.Value) -> ir.Value:
        rows = op.Sigmoid(op.ReduceMean(x, [2], keepdims=1))
        columns = op.Sigmoid(op.ReduceMean(x, [3], keepdims=1))
        return op.Mul(op.Mul(rows, columns), x)

    assert operators(spell)["onnxplain::SigmoidGate"] == 2


def test_a_gate_and_its_complement():
    """x · s + y · (1 − s) is a gate; s · (1 − s) is none."""

    def mixed(op: OpBuilder, x: ir.Value) -> ir.Value:
        s = op.Sigmoid(op.Conv(x, weight(op, 4, 4, 1, 1)))
        return op.Add(op.Mul(x, s), op.Mul(op.Relu(x), op.Sub(1.0, s)))

    def bent(op: OpBuilder, x: ir.Value) -> ir.Value:
        s = op.Sigmoid(x)
        return op.Mul(s, op.Sub(1.0, s))

    assert operators(mixed)["onnxplain::SigmoidGate"] == 1
    assert operators(bent)["Sigmoid"] == 1


def test_a_sigmoid_as_hidden_activation_stays_one():
    def spell(op: OpBuilder, x: ir.Value) -> ir.Value:
        x = op.Sigmoid(op.Conv(x, weight(op, 4, 4, 1, 1)))
        return op.Sigmoid(
            op.Conv(op.Relu(op.Conv(x, weight(op, 4, 4, 1, 1))), weight(op, 2, 4, 1, 1))
        )

    assert operators(spell)["Sigmoid"] == 2


# ----- operators that were there already, and whole networks -----


def test_operators_are_counted_too():
    def spell(op: OpBuilder, x: ir.Value) -> ir.Value:
        grouped = op.Reshape(x, [N, 2, -1])
        grouped = op.InstanceNormalization(grouped, weight(op, 2), weight(op, 2))
        x = op.Reshape(grouped, [N, 4, 6, 6])
        x = op.InstanceNormalization(x, weight(op, 4), weight(op, 4))
        x = op.LayerNormalization(op.Gelu(x), weight(op, 6))
        return op.Mish(op.HardSwish(x))

    assert recognise(graph_of(spell, (4, 6, 6))) == {
        "GroupNorm": 1,
        "InstanceNorm": 1,
        "GELU": 1,
        "LayerNorm": 1,
        "Hardswish": 1,
        "Mish": 1,
    }


class Everything(nn.Module):
    """A block of each kind, as PyTorch users write them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.norms = nn.ModuleList(nn.LayerNorm(8) for _ in range(2))
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)
        self.convs = nn.ModuleList(nn.Conv2d(8, 8, 1) for _ in range(4))
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norms[0](x)).reshape(-1, 16, 3, 2, 4).permute(2, 0, 3, 1, 4)
        a = (q * 0.5 @ k.transpose(-2, -1)).softmax(-1)
        x = x + self.proj((a @ v).transpose(1, 2).reshape(-1, 16, 8))
        x = x + self.down(functional.gelu(self.up(self.norms[1](x))))
        x = x + self.down(functional.gelu(self.up(x), approximate="tanh"))
        x = x.transpose(1, 2).reshape(-1, 8, 4, 4)
        x = functional.silu(self.convs[0](x))
        x = functional.hardswish(self.convs[1](x))
        x = functional.mish(self.convs[2](x))
        x = x * self.convs[3](x.mean((2, 3), keepdim=True)).sigmoid()
        x = x * functional.hardsigmoid(x.mean((2, 3), keepdim=True))
        return self.head(x.mean((2, 3)))


FOUND = {
    "LayerNorm": 2,
    "attention": 1,
    "GELU": 2,
    "SiLU/Swish": 1,
    "Hardswish": 1,
    "Mish": 1,
    "gate": 2,
}


def torchscript(path: Path, opset: int) -> Path:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Everything().eval(),
            (torch.zeros(1, 3, 16, 16),),
            str(path),
            dynamo=False,
            opset_version=opset,
            input_names=["x"],
            dynamic_axes={"x": {0: "N"}},
        )
    return path


@pytest.mark.parametrize("opset", [11, 14, 17])
def test_what_the_torchscript_exporter_writes(opset: int, tmp_path: Path):
    model = ir.load(torchscript(tmp_path / "m.onnx", opset))
    assert canonicalise(model).patterns == FOUND


def listed(path: Path) -> dict[tuple[str, str], str]:
    """What `info --patterns` shows: (count and operation, derivative) → layers."""
    shown = CliRunner().invoke(app, ["info", str(path), "--patterns"], env={"COLUMNS": "300"})
    assert shown.exit_code == 0, shown.output
    lines = shown.output.partition("Patterns")[2].splitlines()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]
    return {(operation, derivative): layers for operation, derivative, layers in rows}


def test_the_explain_graph_of_a_module_is_right_and_info_says_what_was_found(tmp_path: Path):
    torch.manual_seed(0)
    module, path = Everything().eval(), tmp_path / "e.onnx"
    onnxplain.export(module, path, example=torch.zeros(1, 3, 16, 16), method="gradient")
    explainer = onnxplain.load(path)
    assert explainer.metadata.patterns == FOUND
    assert {opset.domain for opset in onnx.load(path).opset_import} == {""}
    images = np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)
    parity = compare(explainer, module, images, np.array([0, 3]))
    assert all(p.relative_l2 < 1e-5 for p in parity.values())
    said = " ".join(CliRunner().invoke(app, ["info", str(path)]).output.split())
    assert all(f"{count} {name}" in said for name, count in FOUND.items())
    assert listed(path) == {
        ("2 LayerNorm", "ordinary"): "norms.0, norms.1",
        ("1 attention", "ordinary"): "softmax",
        ("2 GELU", "ordinary"): "gelu, gelu_1",
        ("1 SiLU/Swish", "ordinary"): "silu",
        ("1 Hardswish", "ordinary"): "hardswish",
        ("1 Mish", "ordinary"): "mish",
        ("2 gate", "ordinary"): "sigmoid, hardsigmoid",
    }


def test_info_lists_by_their_layer_operations_that_no_method_knows(tmp_path: Path):
    class Relus(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pool, self.relu = nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.relu(self.relu(self.conv(x)) - 1)
            x = (self.pool(x).clamp(0, 6) + x.amin((2, 3), True).tanh()).clamp(-1, 1)
            return x.flatten(1)

    path = tmp_path / "e.onnx"
    onnxplain.export(Relus(), path, example=torch.zeros(1, 3, 8, 8), excepted=["clamp"])
    assert listed(path) == {
        ("2 Relu", "excitation"): "relu/relu, relu",
        ("1 MaxPool", "excitation"): "pool",
        ("2 Clip", "ordinary"): "clamp, clamp_1",
        ("1 Tanh", "ordinary"): "tanh",
    }
    old = onnx.load(path)
    kept = [
        p for p in old.metadata_props if p.key not in ("onnxplain.replaced", "onnxplain.ordinary")
    ]
    del old.metadata_props[:]
    old.metadata_props.extend(kept)
    onnx.save(old, path)
    said = CliRunner().invoke(app, ["info", str(path), "--patterns"]).output
    assert "the file names no nonlinear operation" in " ".join(said.split())


def test_info_lists_what_is_nonlinear_by_products_and_choices(tmp_path: Path):
    """As of a ReLU that is spelled as nobody knows it; a gate is one without its product."""

    class Unknown(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            z = self.conv(x)
            z = z * torch.sigmoid(z.mean((2, 3), keepdim=True)) * 3.0
            z = torch.where(z > 1, z, 0.5 * z)
            return (z * z).sum((2, 3)).sort(1)[0]

    path = tmp_path / "e.onnx"
    onnxplain.export(Unknown(), path, example=torch.zeros(1, 3, 8, 8), method="gradient")
    assert {operation for operation, _ in listed(path)} == {"1 Where", "1 Mul", "1 TopK", "1 gate"}


def test_composites_survive_several_targets_and_an_unrolled_ascent(tmp_path: Path):
    """Both repeat nodes of the graph, which must still be spelled out at the end."""
    source, path = torchscript(tmp_path / "m.onnx", 17), tmp_path / "e.onnx"
    for options in ({"multi_target": True}, {"unroll": 2}):
        onnxplain.export(source, path, method="gradient", **options)
        model = onnx.load(path)
        assert {opset.domain for opset in model.opset_import} == {""}
        assert not model.functions


def test_a_call_that_names_no_composite_is_refused():
    def spell(op: OpBuilder, x: ir.Value) -> ir.Value:
        return op.builder.call_op("Swush", [x], {}, "onnxplain", 1)

    with pytest.raises(onnxplain.errors.SourceError, match="Swush"):
        composites.define(graph_of(spell, (3,)))
