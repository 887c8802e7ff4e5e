"""Reductions over axes, and running sums along one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxplain.export.check import Case

from .check import check_vjp, cotangent_of, distinct, drawn

seeds = st.integers(0, 999).map(np.random.default_rng)


@st.composite
def reductions(draw: st.DrawFn, op: str, positive: bool = False) -> Case:
    """Any axes, counted from either end, none given, or none with `noop_with_empty_axes`."""
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    x = distinct(draw(seeds), shape)
    if positive:
        x = np.abs(x) + 0.3
    attributes = draw(st.sampled_from([{}, {"keepdims": 0}, {"keepdims": 1}]))
    chosen = draw(st.lists(st.sampled_from(range(len(shape))), unique=True))
    axes = [axis - len(shape) if draw(st.booleans()) else axis for axis in chosen]
    if not axes and draw(st.booleans()):
        attributes = attributes | {"noop_with_empty_axes": 1}
    inputs = [x] if not axes and draw(st.booleans()) else [x, np.array(axes, np.int64)]
    # A mean needs to know how many it is of.
    over_batch = 0 in chosen or not (chosen or "noop_with_empty_axes" in attributes)
    return Case(op, inputs, attributes, dynamic=[] if op == "ReduceMean" and over_batch else [0])


@st.composite
def running_sums(draw: st.DrawFn) -> Case:
    x = draw(seeds).normal(size=draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    attributes = {name: draw(st.integers(0, 1)) for name in ("exclusive", "reverse")}
    axis = np.array(draw(st.integers(-x.ndim, x.ndim - 1)), draw(st.sampled_from(["i4", "i8"])))
    return Case("CumSum", [x, axis], attributes)


PLAIN = ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceLogSumExp", "ReduceProd"]
CASES = {
    **{op: reductions(op) for op in (*PLAIN, "ReduceL1", "ReduceL2", "ReduceSumSquare")},
    "ReduceLogSum": reductions("ReduceLogSum", positive=True),
    "CumSum": running_sums(),
}
COVERED = set(CASES)


@pytest.mark.parametrize("operator", CASES)
@drawn(15)
@given(data=st.data())
def test_the_rule_is_the_transposed_jacobian(operator: str, data: st.DataObject):
    check_vjp(data.draw(CASES[operator]))


@pytest.mark.parametrize("operator", PLAIN)
@pytest.mark.parametrize("keepdims", [0, 1])
def test_with_noop_and_no_axes_nothing_is_reduced(operator: str, keepdims: int):
    x = distinct(np.random.default_rng(1), [2, 3])
    case = Case(operator, [x], {"noop_with_empty_axes": 1, "keepdims": keepdims})
    g = np.random.default_rng(0).normal(size=x.shape)
    np.testing.assert_allclose(check_vjp(case)[0], g)


def test_elements_that_tie_for_the_maximum_share_the_cotangent():
    x = np.array([[1.0, 2.0, 2.0]])
    case = Case("ReduceMax", [x, np.array([1])])
    np.testing.assert_allclose(cotangent_of(case, np.array([[6.0]])), [[0, 3, 3]])


def test_the_norm_of_nothing_has_no_slope_as_in_torch():
    case = Case("ReduceL2", [np.zeros([1, 3]), np.array([1])])
    assert cotangent_of(case, np.ones([1, 1])).tolist() == [[0, 0, 0]]


def test_log_sum_exp_of_large_numbers_does_not_overflow():
    x = distinct(np.random.default_rng(1), [2, 5]) + 500.0
    (found,) = check_vjp(Case("ReduceLogSumExp", [x, np.array([1])], {"keepdims": 0}))
    assert np.isfinite(found).all()
    assert found.any()


@pytest.mark.parametrize(
    ("factors", "slopes"),
    [([2, 3, 4], [12, 8, 6]), ([2, 0, 4], [0, 8, 0]), ([0, 3, 0], [0, 0, 0]), ([0], [1])],
)
def test_a_product_with_zeros_has_the_slopes_of_the_other_factors(factors, slopes):
    case = Case("ReduceProd", [np.array([factors], float), np.array([1])])
    np.testing.assert_allclose(cotangent_of(case, np.ones([1, 1])), [slopes])
