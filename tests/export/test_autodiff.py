"""The reverse sweep."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
import pytest

from onnxplain.errors import NoRuleError, RuleError, SourceError
from onnxplain.export import VJPS, pull_back, register_vjp
from onnxplain.export.autodiff import dependents
from onnxplain.export.check import (
    add_output,
    add_seeds,
    builder_of,
    finished,
    forward_model,
    initializer,
)
from onnxplain.export.operators import OPERATORS, Operator
from onnxplain.reference.float64 import evaluate

X = np.random.default_rng(0).normal(size=[2, 3])


def value(model: ir.Model, name: str) -> ir.Value:
    (found,) = [v for node in model.graph for v in node.outputs if v.name == name]
    return found


def named(name: str, made: ir.Value) -> ir.Value:
    made.name = name
    return made


def ones_like(model: ir.Model, like: ir.Value) -> ir.Value:
    op = builder_of(model)
    return op.Expand(initializer(op, np.ones(1), ir.DataType.DOUBLE), op.Shape(like))


def swept(
    build: Callable[..., Sequence[ir.Value]],
    *xs: np.ndarray,
    seed: str = "y0",
    wanted: Sequence[str] = (),
) -> list[np.ndarray]:
    """The cotangents of the wanted values (of all inputs, if none is said) for one of ones."""
    model = forward_model(build, [["batch", *x.shape[1:]] for x in xs])
    graph = model.graph
    targets = [value(model, name) for name in wanted] or list(graph.inputs)
    start = value(model, seed)
    found = pull_back(builder_of(model), {start: ones_like(model, start)}, targets, VJPS)
    graph.outputs[:] = []
    for i, cotangent in enumerate(found):
        add_output(model, cotangent, f"cotangent{i}", like=targets[i])
    return evaluate(finished(model), {f"x{i}": x for i, x in enumerate(xs)})


def test_a_value_used_several_times_collects_all_its_cotangents():
    (found,) = swept(lambda op, x: [op.Sum(op.Mul(x, x), op.Exp(x), op.Neg(x), x)], X)
    np.testing.assert_allclose(found, 2 * X + np.exp(X))


def test_a_value_used_twice_by_one_node_collects_both():
    (found,) = swept(lambda op, x: [op.Concat(x, x, axis=1)], X)
    np.testing.assert_allclose(found, np.full_like(X, 2))


def test_a_diamond_is_walked_once():
    """Each node of 40 doublings is visited once, not once per path."""

    def build(op, x):
        for _ in range(40):
            x = op.Add(x, x)
        return [x]

    (found,) = swept(build, X)
    np.testing.assert_allclose(found, 2.0**40)


def test_a_sweep_can_start_at_an_inner_value():
    def build(op, x):
        return [op.Exp(named("inner", op.Mul(x, x)))]

    (found,) = swept(build, X, seed="inner")
    np.testing.assert_allclose(found, 2 * X)


def test_a_sweep_can_stop_at_an_inner_value():
    def build(op, x):
        return [op.Exp(named("inner", op.Mul(x, x)))]

    (found,) = swept(build, X, wanted=["inner"])
    np.testing.assert_allclose(found, np.exp(X * X))


def test_a_sweep_that_stops_at_an_inner_value_needs_no_rules_before_it():
    def build(op, x):
        return [op.Exp(named("inner", op.Det(op.Unsqueeze(x, [1]))))]

    (found,) = swept(build, np.ones([2, 1]), wanted=["inner"])
    np.testing.assert_allclose(found, np.full(2, np.e))


def test_several_values_are_wanted_at_once_even_one_above_another():
    def build(op, a, b):
        return [op.Exp(named("inner", op.Mul(a, b)))]

    a, b = X, X[::-1].copy()
    inner = np.exp(a * b)
    model = forward_model(build, [["batch", 3]] * 2)
    start, middle = value(model, "y0"), value(model, "inner")
    wanted = [model.graph.inputs[1], middle, model.graph.inputs[0]]
    found = pull_back(builder_of(model), {start: ones_like(model, start)}, wanted, VJPS)
    model.graph.outputs[:] = []
    for i, cotangent in enumerate(found):
        add_output(model, cotangent, f"cotangent{i}")
    of_b, of_inner, of_a = evaluate(finished(model), {"x0": a, "x1": b})
    np.testing.assert_allclose(of_b, inner * a)
    np.testing.assert_allclose(of_inner, inner)
    np.testing.assert_allclose(of_a, inner * b)


def test_a_sweep_can_start_at_several_values():
    """ones at x², twice ones at eˣ."""
    model = forward_model(lambda op, x: [op.Mul(x, x), op.Exp(x)], [["batch", 3]])
    square, exp = model.graph.outputs
    one = ones_like(model, square)
    seeds = {square: one, exp: builder_of(model).Add(one, one)}
    model.graph.outputs[:] = pull_back(builder_of(model), seeds, model.graph.inputs, VJPS)
    (found,) = evaluate(finished(model), {"x0": X})
    np.testing.assert_allclose(found, 2 * X + 2 * np.exp(X))


def test_a_value_that_is_seeded_and_on_a_path_gets_both():
    model = forward_model(lambda op, x: [named("inner", op.Mul(x, x)), op.Exp(x)], [["batch", 3]])
    inner = model.graph.outputs[0]
    op = builder_of(model)
    y = op.Mul(inner, inner)
    one = ones_like(model, y)
    (found,) = pull_back(op, {y: one, inner: one}, [inner], VJPS)
    model.graph.outputs[:] = [found]
    np.testing.assert_allclose(evaluate(finished(model), {"x0": X})[0], 2 * X**2 + 1)


def test_a_wanted_value_that_is_the_seed_is_its_own_cotangent():
    model = forward_model(lambda op, x: [op.Exp(x)], [["batch", 3]])
    (y,) = model.graph.outputs
    one = ones_like(model, y)
    assert pull_back(builder_of(model), {y: one}, [y], VJPS) == [one]


def test_two_sweeps_with_different_rules_share_one_forward_pass():
    model = forward_model(lambda op, x: [op.Exp(op.Relu(x))], [["batch", 3]])
    (y,) = model.graph.outputs
    straight = {**VJPS, "Relu": lambda op, node, g: g}
    results = [
        pull_back(builder_of(model), {y: ones_like(model, y)}, model.graph.inputs, rules)[0]
        for rules in (VJPS, straight)
    ]
    model.graph.outputs[:] = results
    proto = finished(model)
    gradient, other = evaluate(proto, {"x0": X})
    np.testing.assert_allclose(other, np.exp(np.maximum(X, 0)))
    np.testing.assert_allclose(gradient, other * (X > 0))
    assert [node.op_type for node in proto.graph.node].count("Exp") == 1


def test_the_forward_pass_stays_as_it_was():
    model = forward_model(lambda op, x: [op.Exp(op.Relu(x))], [["batch", 3]])
    before = list(model.graph)
    (y,) = model.graph.outputs
    pull_back(builder_of(model), {y: ones_like(model, y)}, model.graph.inputs, VJPS)
    assert list(model.graph)[: len(before)] == before


def test_an_operator_without_a_rule_is_an_error_that_says_how_to_give_it_one():
    def build(op, x):
        return [op.Det(op.Unsqueeze(x, [1]), _name="the_determinant")]

    with pytest.raises(NoRuleError) as error:
        swept(build, np.ones([2, 1]))
    message = str(error.value)
    assert "operator Det" in message
    assert "'the_determinant'" in message
    assert 'onnxplain.export.register_vjp("Det")' in message


def test_an_operator_off_every_path_needs_no_rule():
    """Nothing wanted flows into the first Det, and the second leads to no seed."""

    def build(op, x):
        constant = op.Det(initializer(op, np.eye(2), ir.DataType.DOUBLE))
        return [op.Mul(x, constant), op.Det(op.Unsqueeze(x, [1]))]

    (found,) = swept(build, np.ones([2, 1]))
    np.testing.assert_allclose(found, 1)


def test_an_input_without_a_rule_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(OPERATORS, "my.domain::Scaled", Operator())

    @register_vjp("my.domain::Scaled")
    def scaled(op, node, g):
        return op.Mul(g, node.inputs[1])

    def build(op, x):
        scale = named("of_x", op.ReduceMean(x, [0, 2], keepdims=0))
        y = op.Scaled(x, scale, _domain="my.domain", _version=1)
        y.dtype, y.shape = x.dtype, x.shape
        return [y]

    model = forward_model(build, [[2, 3, 4]])
    (y,) = model.graph.outputs
    with pytest.raises(NoRuleError, match=r"Scaled .*input 1 \(of_x\)"):
        pull_back(builder_of(model), {y: y}, model.graph.inputs, VJPS)


def test_an_output_that_does_not_depend_on_the_image_is_an_error():
    with pytest.raises(SourceError, match="does not depend on x1"):
        swept(lambda op, a, b: [op.Exp(a), op.Exp(b)], X, X)


def test_an_output_that_depends_through_steps_alone_is_an_error():
    with pytest.raises(SourceError, match="does not depend on x0"):
        swept(lambda op, x: [op.Exp(op.Floor(x))], X)


def test_integers_carry_no_cotangent():
    """argmax(x) takes part in y = x · argmax(x), and needs no rule."""

    def build(op, x):
        return [op.Mul(x, op.Cast(op.ArgMax(x, axis=1), to=ir.DataType.DOUBLE))]

    (found,) = swept(build, X)
    expected = np.broadcast_to(X.argmax(1, keepdims=True), X.shape)
    np.testing.assert_allclose(found, expected)


def test_dependents_are_what_is_computed_from_the_values_of_the_roots():
    model = forward_model(lambda op, x: [op.Exp(x), op.Shape(x), op.Cast(x, to=7)], [["batch", 3]])
    (x,) = model.graph.inputs
    exp, _shape, cast = model.graph.outputs
    assert dependents(model.graph, [x]) == {x, exp, cast}


def test_a_rule_registered_for_a_custom_domain_is_used(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(OPERATORS, "my.domain::Cube", Operator())

    @register_vjp("my.domain::Cube")
    def cube(op, node, g):
        return op.Mul(g, op.Mul(op.Mul(node.inputs[0], node.inputs[0]), 3.0))

    def build(op, x):
        y = op.Cube(x, _domain="my.domain", _version=1)
        y.dtype, y.shape = x.dtype, x.shape
        return [named("cube", y)]

    model = forward_model(build, [["batch", 3]])
    y = model.graph.outputs[0]
    op = builder_of(model)
    (found,) = pull_back(op, {y: ones_like(model, model.graph.inputs[0])}, model.graph.inputs, VJPS)
    model.graph.outputs[:] = [found]
    np.testing.assert_allclose(evaluate(finished(model), {"x0": X})[0], 3 * X * X)


def test_a_custom_operator_of_a_standard_name_does_not_take_the_standard_rule():
    def build(op, x):
        y = op.Relu(x, _domain="my.domain", _version=1)
        y.dtype, y.shape = x.dtype, x.shape
        return [y]

    model = forward_model(build, [["batch", 3]])
    y = model.graph.outputs[0]
    with pytest.raises(NoRuleError, match=r'register_vjp\("my.domain::Relu"\)'):
        pull_back(builder_of(model), {y: y}, model.graph.inputs, VJPS)


# ----- what the sweep makes of what a rule returns -----


def emitted(build, *arrays, wanted=(0,)):
    """The operators that the sweep adds, without what a later pass would remove."""
    model = forward_model(build, [a.shape for a in arrays])
    (y,) = model.graph.outputs
    op = builder_of(model)
    seed = ones_like(model, y)
    before = len(model.graph)
    pull_back(op, {y: seed}, [model.graph.inputs[i] for i in wanted], VJPS)
    return [node.op_type for node in list(model.graph)[before:]]


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda op, x, w: [op.Mul(x, w)], ["Mul"]),
        (lambda op, x, w: [op.Mul(w, x)], ["Mul"]),
        (lambda op, x, w: [op.Div(x, w)], ["Div"]),
        (lambda op, x, w: [op.Sub(x, w)], []),
        (lambda op, x, w: [op.MatMul(x, w)], ["Transpose", "MatMul"]),
        (lambda op, x, w: [op.MatMul(w, x)], ["Transpose", "MatMul"]),
        (lambda op, x, w: [op.Gemm(x, w, x, beta=2.0)], ["Gemm", "Mul", "Add"]),
        (lambda op, x, w: [op.Gemm(w, w, x, beta=2.0)], ["Mul"]),
        (lambda op, x, w: [op.Einsum(x, w, equation="ij,jk->ik")], ["Einsum"]),
        (lambda op, x, w: [op.Where(op.Greater(w, 0.0), w, x)], ["Where"]),
        (
            lambda op, x, w: [op.Pow(x, w)],
            ["CastLike", "Sub", "Pow", "Mul", "Mul", "Equal", "Less", "And", "Where"],
        ),
    ],
)
def test_no_cotangent_is_made_for_an_input_that_nobody_wants(build, expected: list[str]):
    square = np.random.default_rng(0).normal(size=[3, 3])
    assert emitted(build, square, square) == expected


def test_what_was_broadcast_is_summed_in_the_sweep():
    def build(op, x, row, column, one):
        return [op.Mul(op.Add(op.Add(x, row), column), one)]

    arrays = [X, X[0], X[:, :1], np.ones([])]
    model = forward_model(build, [list(a.shape) for a in arrays])
    graph, (y,) = model.graph, model.graph.outputs
    found = pull_back(builder_of(model), {y: ones_like(model, y)}, list(graph.inputs), VJPS)
    graph.outputs[:] = []
    for i, cotangent in enumerate(found):
        add_output(model, cotangent, f"cotangent{i}", like=graph.inputs[i])
    results = evaluate(finished(model), {f"x{i}": a for i, a in enumerate(arrays)})
    np.testing.assert_allclose(results[0], np.ones_like(X))
    np.testing.assert_allclose(results[1], [2, 2, 2])
    np.testing.assert_allclose(results[2], [[3], [3]])
    np.testing.assert_allclose(results[3], (X + X[0] + X[:, :1]).sum())


@pytest.mark.parametrize(
    ("wrong", "described"),
    [
        (lambda op, node, g: op.Cast(g, to=ir.DataType.FLOAT), "a cotangent FLOAT"),
        (lambda op, node, g: op.Transpose(g), r"a cotangent DOUBLE\[3,2\]"),
        (lambda op, node, g: op.ReduceSum(g, [1], keepdims=0), r"a cotangent DOUBLE\[2\]"),
        (lambda op, node, g: [lambda: op.Concat(g, g, axis=1)], r"a cotangent DOUBLE\[2,6\]"),
    ],
)
def test_a_rule_that_returns_no_cotangent_of_its_input_is_an_error_that_names_it(
    wrong, described: str
):
    model = forward_model(lambda op, x: [op.Exp(x)], [[2, 3]])
    (y,) = model.graph.outputs
    rules = {**VJPS, "Exp": wrong}
    with pytest.raises(RuleError, match=rf"the rule of Exp .*input 0, 'x0' .*{described}"):
        pull_back(builder_of(model), {y: ones_like(model, y)}, model.graph.inputs, rules)


def wrong_relu(rule, shape) -> str:
    """What the sweep says of a rule of Relu on an input of that shape."""
    model = forward_model(lambda op, x: [op.Relu(x)], [shape])
    (x,) = model.graph.inputs
    model.graph.node(0).name = "layer"
    with pytest.raises(RuleError) as error:
        pull_back(builder_of(model), add_seeds(model, [0]), [x], {"Relu": rule})
    assert "the rule of Relu" in str(error.value)
    assert "node 'layer'" in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "rule",
    [
        lambda op, node, g: op.Concat(g, g, axis=0),
        lambda op, node, g: op.Reshape(op.Concat(g, g, axis=1), [-1, 3]),
        lambda op, node, g: op.Tile(g, [2, 1]),
    ],
)
def test_a_cotangent_of_several_batches_is_an_error(rule):
    said = wrong_relu(rule, ["batch", 3])
    assert "gives its input 0, 'x0' DOUBLE[batch,3]" in said
    assert said.endswith("of another multiple of the batch")


def test_a_cotangent_whose_batch_inference_does_not_follow_is_taken_as_its_inputs():
    def rule(op, node, g):
        return op.Reshape(op.Transpose(op.Transpose(g)), op.Shape(node.inputs[0]))

    model = forward_model(lambda op, x: [op.Relu(x)], [["batch", 3]])
    (x,) = model.graph.inputs
    (found,) = pull_back(builder_of(model), add_seeds(model, [0]), [x], {"Relu": rule})
    assert found.shape == x.shape


def test_more_cotangents_than_the_operator_has_inputs_are_an_error():
    assert "2 cotangents" in wrong_relu(lambda op, node, g: (g, g), [2, 3])
    assert "1 input" in wrong_relu(lambda op, node, g: (g, None, lambda: g), [2, 3])


def test_what_a_rule_emits_is_held_to_onnx():
    assert "emits a Swirl" in wrong_relu(lambda op, node, g: op.Swirl(g), [2, 3])
    assert "No Op registered for Swirl" in wrong_relu(lambda op, node, g: op.Swirl(g), [2, 3])
    assert "fails at node 'layer': TypeError: Unexpected" in wrong_relu(
        lambda op, node, g: op.Mul(g, g, axis=1), [2, 3]
    )
    assert "input size 0 not in" in wrong_relu(lambda op, node, g: op.Concat(axis=0), [2, 3])
