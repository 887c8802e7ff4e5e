"""The table as a whole."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnxscript import GraphBuilder, OpBuilder

from onnxplain.errors import NoRuleError
from onnxplain.export import VJPS, pull_back, register_vjp
from onnxplain.export.canonical.spelled.table import SPELLINGS
from onnxplain.export.check import add_output, builder_of, finished, forward_model
from onnxplain.export.operators import OPERATORS, Operator
from onnxplain.reference.float64 import evaluate

from . import (
    test_activations,
    test_arithmetic,
    test_composites,
    test_control_flow,
    test_einsum,
    test_indexing,
    test_linear,
    test_normalisation,
    test_pooling,
    test_quantisers,
    test_recurrent,
    test_reductions,
    test_regions,
    test_sampling,
    test_shaping,
)

KINDS = (
    test_activations,
    test_arithmetic,
    test_composites,
    test_control_flow,
    test_einsum,
    test_indexing,
    test_linear,
    test_normalisation,
    test_pooling,
    test_quantisers,
    test_recurrent,
    test_reductions,
    test_regions,
    test_sampling,
    test_shaping,
)


def test_every_rule_has_a_test():
    covered = [operator for kind in KINDS for operator in kind.COVERED]
    assert sorted(covered) == sorted(VJPS)


def test_a_later_rule_replaces_an_earlier_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(OPERATORS, "Test", Operator())

    @register_vjp("Test")
    def rule(op, node, g):
        return g

    assert VJPS["Test"] is rule


NEWEST = onnx.defs.onnx_opset_version()
WITHOUT_RULE = sorted(
    schema.name
    for schema in onnx.defs.get_all_schemas()
    if schema.domain == ""
    and schema.name not in {*VJPS, "Shape", "Size", "RandomNormalLike", "RandomUniformLike"}
    and onnx.defs.has(schema.name, NEWEST)
    and onnx.defs.get_schema(schema.name, NEWEST).min_input > 0
)


NOTHING_FLOWS = {
    "whole numbers": {"BitCast", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor"},
    "a shape, or a constant": {"Constant", "ConstantOfShape", "Shape", "Size"},
    "indices": {"NonMaxSuppression", "NonZero"},
    "integer products": {"ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul"},
    "chance": {"Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform"}
    | {"RandomUniformLike"},
    "text, or encoded images": {
        "ImageDecoder",
        "RegexFullMatch",
        "StringConcat",
        "StringNormalizer",
    }
    | {"StringSplit", "TfIdfVectorizer"},
    "settings of a filter bank": {"MelWeightMatrix"},
}
WRITTEN_OUT = {
    "ConcatFromSequence", "Optional", "OptionalGetElement", "OptionalHasElement", "SequenceAt",
    "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength",
    "SplitToSequence",
}  # fmt: skip
"""As plain nodes, where their course is known; else refused."""

BY_BODY = {
    "Bernoulli", "BlackmanWindow", "CausalConvWithState", "CenterCropPad", "DynamicQuantizeLinear",
    "HammingWindow", "HannWindow", "LinearAttention", "NegativeLogLikelihoodLoss",
    "RotaryEmbedding", "SequenceMap", "SoftmaxCrossEntropyLoss", "SwiGLU",
}  # fmt: skip
"""As the function body that ONNX gives them."""


def test_every_operator_of_onnx_has_a_rule_or_a_reason():
    """A new version of onnx that brings one fails here, with a body or without."""
    schemas = [s for s in onnx.defs.get_all_schemas() if s.domain == "" and not s.deprecated]
    known = {*OPERATORS, *SPELLINGS, *WRITTEN_OUT}.union(*NOTHING_FLOWS.values())
    bodies = {s.name for s in schemas if s.has_function or s.has_context_dependent_function}
    assert {s.name for s in schemas} - known == BY_BODY
    assert bodies >= BY_BODY


def test_the_operators_without_a_rule_are_those_one_would_expect():
    assert {"NonMaxSuppression", "SequenceAt", "StringSplit"} <= set(WITHOUT_RULE)


@pytest.mark.parametrize("operator", WITHOUT_RULE)
def test_an_operator_without_a_rule_is_an_error_that_names_it(operator: str):
    """Where a cotangent arrives at it; that the image has another way out is no excuse."""
    schema = onnx.defs.get_schema(operator, NEWEST)
    graph = ir.Graph([], [], nodes=[], opset_imports={"": NEWEST}, name="test")
    op = GraphBuilder(graph).op
    x = op.builder.input("x", ir.DataType.FLOAT, [2, 3])
    node = ir.node(operator, [x] * schema.min_input, num_outputs=max(schema.min_output, 1))
    graph.append(node)
    way = node.outputs[0]
    way.dtype, way.shape = ir.DataType.FLOAT, ir.Shape([2, 3])
    y = op.Add(way, x)
    with pytest.raises(NoRuleError, match=rf"\b{operator}\b.*register_vjp"):
        pull_back(op, {y: y}, [x], VJPS)


def as_floats(op: OpBuilder, value: ir.Value) -> ir.Value:
    return op.Cast(value, to=ir.DataType.DOUBLE)


CONSTANT: dict[str, Callable[[OpBuilder, ir.Value], ir.Value]] = {
    "ArgMax": lambda op, x: as_floats(op, op.ArgMax(x, axis=1)),
    "ArgMin": lambda op, x: as_floats(op, op.ArgMin(x, axis=0)),
    "Greater": lambda op, x: as_floats(op, op.Greater(x, 0.5)),
    "LessOrEqual": lambda op, x: as_floats(op, op.LessOrEqual(op.Exp(x), x)),
    "And": lambda op, x: as_floats(op, op.And(op.Less(x, 1.0), op.GreaterOrEqual(x, 0.0))),
    "Or": lambda op, x: as_floats(op, op.Or(op.Equal(x, 1.0), op.Not(op.IsNaN(x)))),
    "Xor": lambda op, x: as_floats(op, op.Xor(op.IsInf(x), op.Greater(x, 0.0))),
    "NonZero": lambda op, x: as_floats(op, op.ReduceSum(op.NonZero(x))),
    "Shape": lambda op, x: as_floats(op, op.Gather(op.Shape(x), [1, 0, 1])),
    "Size": lambda op, x: as_floats(op, op.Size(x)),
    "ConstantOfShape": lambda op, x: as_floats(op, op.ConstantOfShape(op.Shape(x))),
    "Range": lambda op, x: as_floats(op, op.Range(0, op.Squeeze(op.Shape(x, start=1)), 1)),
    "TopK": lambda op, x: as_floats(op, op.TopK(x, [3], axis=1, _outputs=2)[1]),
    "Cast": lambda op, x: as_floats(op, op.Cast(x, to=ir.DataType.INT32)),
    "Hardmax": lambda op, x: op.Hardmax(x),
}


@pytest.mark.parametrize("operator", CONSTANT)
def test_what_has_no_slope_is_a_constant_to_the_sweep(operator: str):
    """y = x · f(x) with such an f: the cotangent of x is f(x), not one term more or less."""
    build = CONSTANT[operator]
    model = forward_model(lambda op, x: [op.Mul(x, build(op, x))], [["batch", 3]])
    op = builder_of(model)
    (y,), (x,) = model.graph.outputs, model.graph.inputs
    seed = op.builder.input("g", y.dtype, ["batch", 3])
    (found,) = pull_back(op, {y: seed}, [x], VJPS)
    model.graph.outputs[:] = []
    add_output(model, found, "cotangent", like=x)
    add_output(model, op.Mul(seed, build(op, x)), "expected", like=x)
    given = np.random.default_rng(0).normal(size=[2, 2, 3]) * 3
    result, expected = evaluate(finished(model), dict(zip(["x0", "g"], given, strict=True)))
    np.testing.assert_array_equal(result, expected)
