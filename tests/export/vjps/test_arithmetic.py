"""Elementwise arithmetic, with broadcasting."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnxscript import OpBuilder

from onnxplain.errors import NoRuleError
from onnxplain.export import VJPS, pull_back
from onnxplain.export.check import (
    Case,
    add_output,
    builder_of,
    finished,
    forward_model,
    initializer,
)
from onnxplain.reference.float64 import evaluate

from .check import check_vjp, cotangent_of, distinct, drawn

seeds = st.integers(0, 999).map(np.random.default_rng)
shapes = st.lists(st.integers(1, 4), min_size=1, max_size=4)


@st.composite
def broadcast(draw: st.DrawFn, count: int) -> list[list[int]]:
    """Shapes that broadcast together; a scalar among them at times."""
    full = draw(shapes)
    return [
        [size if draw(st.booleans()) else 1 for size in full[draw(st.integers(0, len(full))) :]]
        for _ in range(count)
    ]


def batched(given: list[list[int]], active: list[int]) -> list[int]:
    """Inputs whose first axis may be dynamic: all those that have the result's batch, or none."""
    rank = max(map(len, given))
    at = [i for i, shape in enumerate(given) if len(shape) == rank > 0 and shape[0] > 1]
    return at if set(at) <= set(active) else []


@st.composite
def of_several(draw: st.DrawFn, op: str, least: int, most: int, positive: bool = False) -> Case:
    rng = draw(seeds)
    given = draw(broadcast(draw(st.integers(least, most))))
    values = distinct(rng, [sum(int(np.prod(s)) for s in given)])
    parts = np.split(values, np.cumsum([int(np.prod(s)) for s in given])[:-1])
    inputs = [part.reshape(s) for part, s in zip(parts, given, strict=True)]
    if positive:
        inputs = [np.abs(x) + 0.3 for x in inputs]
    active = sorted(draw(st.sets(st.sampled_from(range(len(given))), min_size=1)))
    return Case(op, inputs, {}, active, batched(given, active))


@st.composite
def wheres(draw: st.DrawFn) -> Case:
    rng = draw(seeds)
    given = draw(broadcast(3))
    active = sorted(draw(st.sets(st.sampled_from([1, 2]), min_size=1)))
    inputs = [rng.normal(size=s) for s in given]
    inputs[0] = inputs[0] > 0
    return Case("Where", inputs, {}, active, batched(given, active))


@st.composite
def integer_powers(draw: st.DrawFn) -> Case:
    """As real graphs have it: x² with the exponent a constant of any type, x of any sign."""
    dtype = draw(st.sampled_from([np.float64, np.float32, np.int64, np.int32]))
    exponent = np.array(draw(st.sampled_from([1, 2, 3])), dtype)
    return Case("Pow", [distinct(draw(seeds), draw(shapes)), exponent])


@st.composite
def remainders(draw: st.DrawFn) -> Case:
    """Away from whole multiples, where the remainder jumps."""
    rng, full = draw(seeds), draw(shapes)
    b = rng.uniform(0.5, 2, size=full[draw(st.integers(0, len(full))) :])
    q = rng.integers(-3, 4, size=full)
    a = np.sign(q + 0.5) * (np.abs(q) + rng.uniform(0.1, 0.9, size=full)) * b
    active = draw(st.sampled_from([[0], [1], [0, 1]]))
    dynamic = batched([list(a.shape), list(b.shape)], active)
    return Case("Mod", [a, b * rng.choice([-1, 1])], {"fmod": 1}, active, dynamic)


@st.composite
def of_one(
    draw: st.DrawFn, op: str, positive: bool = False, among: tuple[float, float] | None = None
) -> Case:
    x = distinct(draw(seeds), draw(shapes))
    if among is not None:
        x = among[0] + (x + 3) / 6 * (among[1] - among[0])
    return Case(op, [np.abs(x) + 0.2 if positive else x])


@st.composite
def casts(draw: st.DrawFn, op: str) -> Case:
    x = draw(seeds).normal(size=draw(shapes))
    if op == "Cast":
        return Case(op, [x], {"to": ir.DataType.DOUBLE.value})
    return Case(op, [x, np.zeros([1])])


CASES = {
    "Add": of_several("Add", 2, 2),
    "Sub": of_several("Sub", 2, 2),
    "Mul": of_several("Mul", 2, 2),
    "Div": of_several("Div", 2, 2, positive=True),
    "Pow": of_several("Pow", 2, 2, positive=True) | integer_powers(),
    "Mod": remainders(),
    "Sum": of_several("Sum", 1, 4),
    "Mean": of_several("Mean", 1, 4),
    "Max": of_several("Max", 1, 3),
    "Min": of_several("Min", 1, 3),
    "Where": wheres(),
    "Cast": casts("Cast"),
    "CastLike": casts("CastLike"),
    **{op: of_one(op) for op in ("Identity", "Dropout", "Neg", "Abs", "Exp", "Erf", "Sin", "Cos")},
    **{op: of_one(op) for op in ("Sinh", "Cosh", "Atan", "Asinh")},
    **{op: of_one(op, positive=True) for op in ("Log", "Sqrt", "Reciprocal")},
    **{op: of_one(op, among=(-0.9, 0.9)) for op in ("Tan", "Asin", "Acos", "Atanh")},
    "Acosh": of_one("Acosh", among=(1.2, 4.0)),
}
STEPS = ("Floor", "Ceil", "Round", "Sign")
COVERED = {*CASES, *STEPS}


@pytest.mark.parametrize("operator", CASES)
@drawn(15)
@given(data=st.data())
def test_the_rule_is_the_transposed_jacobian(operator: str, data: st.DataObject):
    check_vjp(data.draw(CASES[operator]), float32=operator != "Cast")


@pytest.mark.parametrize("operator", STEPS)
def test_a_step_passes_no_cotangent(operator: str):
    """y = x · step(x): all that arrives comes through the other factor."""
    x = distinct(np.random.default_rng(0), [3, 4]) + 0.01
    found, expected = cotangents(lambda op, x: op.Mul(x, getattr(op, operator)(x)), x)
    stepped = {"Floor": np.floor, "Ceil": np.ceil, "Round": np.round, "Sign": np.sign}[operator](x)
    np.testing.assert_allclose(found, stepped)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_operands_that_tie_share_the_cotangent():
    found, _ = cotangents(lambda op, x: op.Max(x, [1.0, 1.0, 1.0], x), np.array([0.0, 1.0, 2.0]))
    np.testing.assert_allclose(found, [0, 2 / 3, 1])


def test_the_square_of_nothing_has_no_slope():
    found, _ = cotangents(lambda op, x: op.Pow(x, 2.0), np.array([0.0, -2.0]))
    np.testing.assert_allclose(found, [0, -4])


def test_an_exponent_of_nothing_passes_no_cotangent_as_in_torch():
    base = np.array([0.0, 2.0])
    found = cotangent_of(Case("Pow", [base, np.array([2.0, 3.0])], active=[1]), np.ones(2))
    np.testing.assert_allclose(found, [0, 8 * np.log(2)])


def test_the_integers_of_a_quantised_product_are_no_dead_end():
    """A network in QOperator form would otherwise lose what comes through them."""

    def build(op: OpBuilder, x: ir.Value) -> list[ir.Value]:
        w = op.builder.initializer(ir.tensor(np.ones([3, 2], np.uint8), name="w"), "w")
        q, _, _ = op.DynamicQuantizeLinear(x, _outputs=3)
        return [
            op.Add(
                op.Cast(op.MatMulInteger(q, w), to=ir.DataType.FLOAT), op.Slice(x, [0], [2], [1])
            )
        ]

    model = forward_model(build, [[2, 3]], ir.DataType.FLOAT)
    (y,) = model.graph.outputs
    with pytest.raises(NoRuleError, match="MatMulInteger"):
        pull_back(builder_of(model), {y: y}, model.graph.inputs, VJPS)


def test_a_value_used_as_both_operands_collects_both_cotangents():
    found, _ = cotangents(lambda op, x: op.Mul(x, x), np.array([3.0, -2.0]))
    np.testing.assert_allclose(found, [6, -4])


def test_a_network_in_two_precisions_has_a_cotangent_of_the_images():
    x = np.array([[0.5, -2.0]], np.float32)
    found, _ = cotangents(
        lambda op, x: op.Cast(op.Exp(op.Cast(x, to=ir.DataType.DOUBLE)), to=ir.DataType.FLOAT), x
    )
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.exp(x), rtol=1e-6)


@pytest.mark.parametrize("through", ["Shape", "Size"])
def test_the_size_of_a_value_passes_no_cotangent(through: str):
    """y = x · size(x)."""

    def build(op: OpBuilder, x: ir.Value) -> ir.Value:
        size = op.ReduceProd(op.Shape(x), keepdims=0) if through == "Shape" else op.Size(x)
        return op.Mul(x, op.CastLike(size, x))

    found, _ = cotangents(build, np.ones([3, 4]))
    np.testing.assert_allclose(found, 12)


def cotangents(build: Callable[..., ir.Value], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cotangent of x for one of ones, and central differences along each coordinate alike."""
    dtype = ir.DataType.from_numpy(x.dtype)
    model = forward_model(lambda op, x: [build(op, x)], [["batch", *x.shape[1:]]], dtype)
    op = builder_of(model)
    y = model.graph.outputs[0]
    forward = finished(forward_model(lambda op, x: [build(op, x)], [x.shape], dtype))
    ones = initializer(op, np.ones(1), dtype)
    (found,) = pull_back(op, {y: op.Expand(ones, op.Shape(y))}, model.graph.inputs, VJPS)
    model.graph.outputs[:] = []
    add_output(model, found, "cotangent", like=model.graph.inputs[0])
    up, down = (evaluate(forward, {"x0": x + np.array(h, x.dtype)})[0] for h in (1e-4, -1e-4))
    return evaluate(finished(model), {"x0": x})[0], (up - down) / 2e-4


@pytest.mark.parametrize(
    "case", [Case("Sqrt", [np.zeros([2])]), Case("Pow", [np.zeros([2]), np.array(0.5)])], ids=str
)
def test_a_root_of_nothing_has_no_slope(case):
    """So that the deviation of a constant channel has none, as in PyTorch, and not NaN."""
    np.testing.assert_array_equal(cotangent_of(case, np.ones([2])), 0)
