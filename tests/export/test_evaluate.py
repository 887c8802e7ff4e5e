"""Values that a graph computes from sizes and constants."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import parser

from onnxplain.export.canonical.evaluate import concrete, evaluated

HEAD = '<ir_version: 10, opset_import: ["": 20]>'


def value(body: str, name: str = "y") -> ir.Value:
    """The value of that name in a graph from x [batch, 6]; w is [64·batch, ?], v [batch/2, 3]."""
    model = parser.parse_model(
        HEAD + f"g (float[batch,6] x, float[A,B] w, float[C,3] v) => (y) {body}"
    )
    graph = ir.from_proto(model).graph
    graph.inputs[1].shape = ir.Shape([ir.SymbolicDim("64*batch"), ir.SymbolicDim(None)])
    graph.inputs[2].shape = ir.Shape([ir.SymbolicDim("batch/2"), 3])
    return next(y for node in graph for y in node.outputs if y.name == name)


def test_the_symbols_of_a_size_are_taken_for_the_number() -> None:
    shape = value("{ y = Shape(w) }").producer().inputs[0]
    assert concrete(shape, 3) == [192, 3]
    np.testing.assert_array_equal(evaluated(value("{ y = Shape(w) }"), 20, 3), [192, 3])


def test_a_size_that_is_no_whole_number_then_is_not_known() -> None:
    half = value("{ y = Shape(v) }")
    np.testing.assert_array_equal(evaluated(half, 20, 4), [2, 3])
    assert evaluated(half, 20, 3) is None


def test_a_part_of_a_shape_and_how_many_elements_there_are() -> None:
    np.testing.assert_array_equal(evaluated(value("{ y = Shape<start = 1>(x) }"), 20, 2), [6])
    np.testing.assert_array_equal(evaluated(value("{ y = Shape<end = -1>(x) }"), 20, 2), [2])
    assert evaluated(value("{ y = Size(x) }"), 20, 2) == 12


def test_what_depends_on_the_image_is_not_known_but_may_be_given() -> None:
    y = value("{ r = Relu(x) s = Shape(r) t = ReduceSum(r) y = Neg(t) }")
    assert evaluated(y, 20, 2) is None
    total = y.producer().inputs[0]
    assert evaluated(y, 20, 2, {total: np.array(3.0)}) == -3.0


def test_a_thousand_steps_are_no_recursion() -> None:
    steps = "".join(f"b{i + 1} = Add(b{i}, a0) " for i in range(1100))
    y = value(f"{{ a0 = Size(x) b0 = Identity(a0) {steps} y = Identity(b1100) }}")
    assert evaluated(y, 20, 1) == 6 * 1101


@pytest.mark.parametrize(
    "body",
    [
        "{ s = Shape(x) y = Reshape(five, s) }",  # does not fit
        "{ s = Size(w) y = Range(zero, s, one) }",  # too many
    ],
)
def test_what_cannot_be_computed_is_not_known(body: str) -> None:
    constants = "<float[5] five = {1, 2, 3, 4, 5}, int64 zero = {0}, int64 one = {1}>"
    assert evaluated(value(constants + body), 20, 100) is None
