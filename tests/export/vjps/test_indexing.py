"""Operators that take or put elements by their indices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnxscript import OpBuilder

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
from .test_shaping import from_either_end, images, integers

seeds = st.integers(0, 999).map(np.random.default_rng)


class AtRunTime(Case):
    """The indices, input 1, are computed: no constant to the rule, though it has their shape."""

    def build(self, op: OpBuilder, *values: ir.Value) -> Sequence[ir.Value]:
        given = dict(zip(self.active, values, strict=True))
        inputs = [
            given[i] if i in given else initializer(op, x, values[0].dtype)
            for i, x in enumerate(self.inputs)
        ]
        nothing = op.Cast(op.ReduceMin(op.Mul(values[0], 0.0), keepdims=0), to=ir.DataType.INT64)
        inputs[1] = op.Add(inputs[1], nothing)
        return [op.builder.call_op(self.op, inputs, dict(self.attributes), version=op.version)]


kinds = st.sampled_from([Case, AtRunTime])


def indices(rng: np.random.Generator, n: int, shape: Sequence[int]) -> np.ndarray:
    return rng.integers(-n, n, size=shape)


@st.composite
def gatherings(draw: st.DrawFn) -> Case:
    """Indices of any rank, from either end, in any order, with repeats."""
    x = draw(images())
    axis = draw(st.integers(0, x.ndim - 1))
    n = x.shape[axis]
    shape = draw(st.sampled_from([[], [1], [3], [n], [2, 2], [1, 2, 1]]))
    size = int(np.prod(shape))
    indices = draw(st.lists(st.integers(-n, n - 1), min_size=size, max_size=size))
    kind = draw(kinds)
    ints = draw(st.sampled_from([np.int64, np.int32])) if kind is Case else np.int64
    attributes = (
        {"axis": from_either_end(draw, axis, x.ndim)} if axis or draw(st.booleans()) else {}
    )
    inputs = [x, np.array(indices, ints).reshape(shape)]
    return kind("Gather", inputs, attributes)


@st.composite
def gatherings_of_tuples(draw: st.DrawFn) -> Case:
    """With as many first axes as there are `batch_dims` gone through side by side."""
    rng, x, kind = draw(seeds), draw(images(1, 4)), draw(kinds)
    batch = draw(st.integers(0, x.ndim - 1))
    k = draw(st.integers(1, x.ndim - batch))
    leading = draw(st.sampled_from([[], [1], [4], [2, 3]] if k < x.ndim else [[1], [4], [2, 3]]))
    shape = [*x.shape[:batch], *leading, 1]
    columns = [indices(rng, n, shape) for n in x.shape[batch : batch + k]]
    attributes = {"batch_dims": batch} if batch or draw(st.booleans()) else {}
    return kind("GatherND", [x, np.concatenate(columns, axis=-1)], attributes, dynamic=[])


@st.composite
def gatherings_of_elements(draw: st.DrawFn) -> Case:
    """As many indices along the axis as one likes, at most as many as there are elsewhere."""
    rng, x = draw(seeds), draw(images())
    axis = draw(st.integers(0, x.ndim - 1))
    shape = [draw(st.integers(1, n + 2 if i == axis else n)) for i, n in enumerate(x.shape)]
    attributes = {"axis": from_either_end(draw, axis, x.ndim)}
    inputs = [x, indices(rng, x.shape[axis], shape)]
    return draw(kinds)("GatherElements", inputs, attributes, dynamic=[])


reductions = st.sampled_from([{}, {"reduction": "none"}, {"reduction": "add"}])
either = st.sampled_from([[0], [2], [0, 2]])


@st.composite
def scatterings_of_elements(draw: st.DrawFn) -> Case:
    """Where elements replace others, no two go to one place: which would win is anyone's guess."""
    rng, x = draw(seeds), draw(images())
    axis, attributes = draw(st.integers(0, x.ndim - 1)), draw(reductions)
    n, shape = x.shape[axis], [draw(st.integers(1, n)) for n in x.shape]
    if attributes.get("reduction") == "add":
        at = indices(rng, n, shape)
    else:
        order = np.argsort(rng.normal(size=[*shape[:axis], n, *shape[axis + 1 :]]), axis=axis)
        at = order.take(range(shape[axis]), axis) - n * rng.integers(0, 2)
    attributes = attributes | {"axis": from_either_end(draw, axis, x.ndim)}
    inputs = [x, at, rng.normal(size=shape)]
    return draw(kinds)("ScatterElements", inputs, attributes, draw(either), dynamic=[])


@st.composite
def scatterings_of_tuples(draw: st.DrawFn) -> Case:
    rng, x, attributes = draw(seeds), draw(images()), draw(reductions)
    k = draw(st.integers(1, x.ndim))
    places = int(np.prod(x.shape[:k]))
    count = draw(st.integers(1, places))
    flat = rng.permutation(places)[:count]
    if attributes.get("reduction") == "add":
        flat = rng.integers(0, places, size=count)
    at = np.stack(np.unravel_index(flat, x.shape[:k]), axis=-1)
    shape = [1, count] if draw(st.booleans()) else [count]
    inputs = [x, at.reshape([*shape, k]), rng.normal(size=[*shape, *x.shape[k:]])]
    return draw(kinds)("ScatterND", inputs, attributes, draw(either), dynamic=[])


@st.composite
def winners(draw: st.DrawFn) -> Case:
    x = distinct(draw(seeds), draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    axis = draw(st.sampled_from([None, *range(-x.ndim, x.ndim)]))
    k = draw(st.integers(1, x.shape[-1 if axis is None else axis]))
    attributes = {"largest": draw(st.integers(0, 1)), "sorted": 1}
    if axis is not None:
        attributes["axis"] = axis
    dynamic = [0] if axis is not None and axis % x.ndim else []
    return Case("TopK", [x, integers(k)], attributes, dynamic=dynamic, outputs=2)


CASES = {
    "Gather": gatherings(),
    "GatherND": gatherings_of_tuples(),
    "GatherElements": gatherings_of_elements(),
    "ScatterElements": scatterings_of_elements(),
    "ScatterND": scatterings_of_tuples(),
    "TopK": winners(),
}
COVERED = {*CASES, "OneHot", "EyeLike", "Range", "Unique"}


@pytest.mark.parametrize("operator", CASES)
@drawn(20)
@given(data=st.data())
def test_the_rule_is_the_transposed_jacobian(operator: str, data: st.DataObject):
    check_vjp(data.draw(CASES[operator]))


# Particulars


def test_repeated_indices_add_up():
    case = Case("Gather", [np.ones([1, 3]), integers(2, 0, 2, -1)], {"axis": 1})
    assert cotangent_of(case, np.array([[1.0, 2.0, 3.0, 4.0]])).tolist() == [[2, 0, 8]]


@pytest.mark.parametrize("operator", ["ScatterElements", "ScatterND"])
@pytest.mark.parametrize("reduction", ["mul", "max", "min"])
def test_scattering_by_another_reduction(operator: str, reduction: str):
    """Two updates meet in one place, and among the factors of another one is 0."""
    elements = operator == "ScatterElements"
    index = np.array([[0, 2], [0, 2], [3, 1]] if elements else [[0], [0], [3]])
    values = distinct(np.random.default_rng(0), [7, 2])
    data, updates = values[:4], values[4:]
    if reduction == "mul":
        updates[0, 0] = 0
    attributes = {"reduction": reduction}
    check_vjp(Case(operator, [data, index, updates], attributes, [0, 2], dynamic=[]))


def test_extrema_that_tie_where_they_are_scattered_share_the_cotangent():
    inputs = [np.array([5.0, 1.0]), np.array([0, 0]), np.array([5.0, 2.0])]
    case = Case("ScatterElements", inputs, {"reduction": "max"}, [0], dynamic=[])
    assert cotangent_of(case, np.array([4.0, 3.0])).tolist() == [2, 3]
    case = Case("ScatterElements", inputs, {"reduction": "max"}, [2], dynamic=[])
    assert cotangent_of(case, np.array([4.0, 3.0])).tolist() == [2, 0]


@pytest.mark.parametrize("operator", ["OneHot", "EyeLike"])
def test_what_whole_numbers_or_a_shape_decide_passes_no_cotangent(operator: str):
    """y = x · f(x): all that arrives comes through the other factor."""
    x = np.array([[1.0, 2.0, 0.0], [0.0, 0.0, 1.0], [2.0, 2.0, 2.0]])

    def build(op: OpBuilder, x: ir.Value) -> list[ir.Value]:
        if operator == "EyeLike":
            return [op.Mul(x, op.EyeLike(x))]
        one_hot = op.OneHot(x, 3, initializer(op, np.array([0.0, 1.0]), x.dtype), axis=1)
        return [op.Mul(x, op.ReduceSum(op.Mul(one_hot, 1.0), [2], keepdims=0))]

    model = forward_model(build, [["batch", 3]])
    op = builder_of(model)
    (y,) = model.graph.outputs
    seed = op.builder.input("g", y.dtype, ["batch", 3])
    (found,) = pull_back(op, {y: seed}, model.graph.inputs[:1], VJPS)
    model.graph.outputs[:] = []
    add_output(model, found, "cotangent", like=model.graph.inputs[0])
    (result,) = evaluate(finished(model), {"x0": x, "g": np.ones([3, 3])})
    expected = np.eye(3) if operator == "EyeLike" else np.eye(3)[x.astype(int)].sum(1)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("axis", [0, -1])
def test_the_two_values_of_a_one_hot(axis: int):
    inputs = [integers(0, 2), np.array(3), np.array([0.5, 2.0])]
    check_vjp(Case("OneHot", inputs, {"axis": axis}, [2], []))


def test_an_arithmetic_progression_moves_with_its_start_and_its_step():
    inputs = [np.array(1.0), np.array(5.25), np.array(0.5)]
    check_vjp(Case("Range", inputs, {}, [0, 2], []), float32=False)


@pytest.mark.parametrize("attributes", [{}, {"axis": 0}, {"axis": 1}])
def test_what_is_there_once_comes_from_where_it_was_found_first(attributes: dict[str, int]):
    x = np.array([[3.0, 1.0, 3.0], [3.0, 1.0, 3.0], [2.0, 4.0, 2.0]])
    model = forward_model(lambda op, x: [op.Unique(x, **attributes)], [[3, 3]])
    op = builder_of(model)
    (y,) = model.graph.outputs
    shape = [2, 3] if attributes == {"axis": 0} else [3, 2] if attributes else [4]
    seed = op.builder.input("g", y.dtype, shape)
    (found,) = pull_back(op, {y: seed}, model.graph.inputs[:1], VJPS)
    model.graph.outputs[:] = []
    add_output(model, found, "cotangent", like=model.graph.inputs[0])
    g = np.arange(1.0, 1 + np.prod(shape)).reshape(shape)
    (result,) = evaluate(finished(model), {"x0": x, "g": g})
    expected = np.zeros([3, 3])
    if not attributes:
        expected[[0, 2, 0, 2], [1, 0, 0, 1]] = g
    elif attributes["axis"] == 0:
        expected[[2, 0]] = g
    else:
        expected[:, [1, 0]] = g
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("operator", ["Gather", "GatherND", "GatherElements"])
def test_indices_computed_from_the_image_carry_no_cotangent(operator: str):
    """y = x[argmax(x)] has the slope 1 where the maximum is."""
    x = distinct(np.random.default_rng(0), [2, 3])

    def build(op: OpBuilder, x: ir.Value) -> list[ir.Value]:
        best = op.ArgMax(x, axis=1, keepdims=1)
        if operator == "Gather":
            flat = op.Add(op.Reshape(best, [-1]), [0, 3])
            return [op.Gather(op.Reshape(x, [-1]), flat)]
        if operator == "GatherND":
            return [op.GatherND(x, best, batch_dims=1)]
        return [op.GatherElements(x, best, axis=1)]

    model = forward_model(build, [[2, 3]])
    op = builder_of(model)
    (y,) = model.graph.outputs
    seed = op.builder.input("g", y.dtype, y.shape)
    (found,) = pull_back(op, {y: seed}, model.graph.inputs[:1], VJPS)
    model.graph.outputs[:] = []
    add_output(model, found, "cotangent", like=model.graph.inputs[0])
    ones = np.ones([2, 1] if operator == "GatherElements" else [2])
    (result,) = evaluate(finished(model), {"x0": x, "g": ones})
    np.testing.assert_array_equal(result, x == x.max(1, keepdims=True))
