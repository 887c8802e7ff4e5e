"""Einsum."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxplain.export.check import Case, forward_model
from onnxplain.export.count import multiply_adds

from .check import check_vjp, drawn

seeds = st.integers(0, 999).map(np.random.default_rng)
SIZES = {"b": 2, "i": 3, "j": 4, "k": 2, "A": 3, "h": 2, "q": 3, "d": 4}


def case_of(equation: str, rng: np.random.Generator, hidden: tuple[int, ...] = (), **more: Any):
    """Operands of `SIZES`; `hidden` are the sizes of an ellipsis."""
    terms = equation.replace(" ", "").split("->")[0].split(",")
    inputs = []
    for term in terms:
        front, dots, back = term.partition("...")
        middle = hidden if dots else ()
        shape = [*(SIZES[c] for c in front), *middle, *(SIZES[c] for c in back)]
        inputs.append(rng.normal(size=shape))
    more = {"active": range(len(terms)), "dynamic": []} | more
    return Case("Einsum", inputs, {"equation": equation}, **more)


@st.composite
def equations(draw: st.DrawFn) -> Case:
    """One to three operands of any letters, each with any left out of the result."""
    letters = st.lists(st.sampled_from("bijkA"), min_size=1, max_size=3, unique=True).map("".join)
    terms = draw(st.lists(letters, min_size=1, max_size=3))
    all_letters = sorted(set("".join(terms)))
    kept = draw(st.lists(st.sampled_from(all_letters), unique=True))
    result = "".join(draw(st.permutations(kept)))
    active = sorted(draw(st.sets(st.sampled_from(range(len(terms))), min_size=1)))
    return case_of(f"{','.join(terms)}->{result}", draw(seeds), active=active)


CASES = {"Einsum": equations()}
COVERED = set(CASES)


@pytest.mark.parametrize("operator", CASES)
@drawn(20)
@given(data=st.data())
def test_the_rule_is_the_transposed_jacobian(operator: str, data: st.DataObject):
    check_vjp(data.draw(CASES[operator]))


@pytest.mark.parametrize(
    "equation",
    [
        "bij,bjk->bik",
        "bhqd,bhkd->bhqk",
        "b i j , k j -> b k i",
        "bij,bij",
        "bi,j",
        "bij->bji",
        "bji",
    ],
)
def test_equations_of_real_networks(equation: str):
    check_vjp(case_of(equation, np.random.default_rng(1)))


@pytest.mark.parametrize("equation", ["bij,ik->bjk", "bij,bjk->bik", "bij->bj"])
def test_a_dynamic_batch(equation: str):
    count = equation.count(",") + 1 if "bjk" in equation.split("->")[0] else 1
    active = list(range(count))
    check_vjp(case_of(equation, np.random.default_rng(1), active=active, dynamic=active))


@pytest.mark.parametrize(
    "equation", ["ii->i", "ii", "ii->", "bii->bi", "iij,jk->ik", "iji->j", "iii->i"]
)
def test_a_diagonal_passes_nothing_beside_itself(equation: str):
    check_vjp(case_of(equation, np.random.default_rng(1)), float32="iii" not in equation)


@pytest.mark.parametrize("hidden", [(), (3,), (2, 3)])
@pytest.mark.parametrize(
    "equation", ["...ij,...jk->...ik", "...ij,jk->...ik", "...i,...i", "b...->...", "i...->i..."]
)
def test_an_ellipsis_stands_for_axes_of_any_number(equation: str, hidden: tuple[int, ...]):
    check_vjp(case_of(equation, np.random.default_rng(1), hidden))


def test_axes_of_an_ellipsis_broadcast():
    rng = np.random.default_rng(1)
    operands = [rng.normal(size=[2, 1, 3, 4]), rng.normal(size=[1, 5, 4, 2])]
    case = Case("Einsum", operands, {"equation": "...ij,...jk->...ik"}, [0, 1], dynamic=[])
    check_vjp(case)
    check_vjp(
        Case("Einsum", operands[::-1], {"equation": "...jk,...ij->...ik"}, [0, 1], dynamic=[])
    )


def test_the_products_of_an_einsum_are_counted():
    case = case_of("bij,bjk->bik", np.random.default_rng(1))
    model = case.forward_model()
    assert multiply_adds(model.graph) == 2 * 3 * 4 * 2


def test_windows_in_the_batch_are_counted_for_one_image():
    """As a Swin transformer has them: [64 · batch, 3, 4]."""
    model = forward_model(lambda op, x, w: [op.MatMul(x, w)], [["64*batch", 3, 4], [4, 2]])
    assert multiply_adds(model.graph) == 64 * 3 * 4 * 2
