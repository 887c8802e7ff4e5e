"""Normalisations, in inference mode."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from .check import Case, check_vjp, drawn

seeds = st.integers(0, 999).map(np.random.default_rng)


@st.composite
def batch_normalisations(draw: st.DrawFn) -> Case:
    rng = draw(seeds)
    shape = draw(st.lists(st.integers(1, 4), min_size=2, max_size=5))
    scale, bias, mean, variance = rng.normal(size=[4, shape[1]])
    attributes = draw(st.sampled_from([{}, {"epsilon": 0.125}]))
    inputs = [rng.normal(size=shape), scale, bias, mean, variance**2 + 0.01]
    return Case("BatchNormalization", inputs, attributes)


@st.composite
def local_responses(draw: st.DrawFn) -> Case:
    """Windows larger than the channels too, and of an even size, which lean to one side."""
    shape = [draw(st.integers(1, n)) for n in (2, 6, 3, 2)]
    attributes = {"size": draw(st.integers(1, 7))}
    if draw(st.booleans()):
        attributes |= {"alpha": 0.75, "beta": draw(st.sampled_from([0.5, 1.5])), "bias": 2.0}
    return Case("LRN", [draw(seeds).normal(size=shape) * 3], attributes)


CASES = {"BatchNormalization": batch_normalisations(), "LRN": local_responses()}
COVERED = set(CASES)


@pytest.mark.parametrize("operator", CASES)
@drawn(25)
@given(data=st.data())
def test_the_rule_is_the_transposed_jacobian(operator: str, data: st.DataObject):
    case = data.draw(CASES[operator])
    # ONNX Runtime wants a window to have a middle.
    check_vjp(case, float32=case.attributes.get("size", 1) % 2 == 1)


def test_local_response_normalisation_agrees_with_torch_autograd():
    x = np.random.default_rng(1).normal(size=[2, 8, 3, 3]) * 4
    leaf = torch.tensor(x, requires_grad=True)
    y = functional.local_response_norm(leaf, 5, alpha=0.5, beta=0.75, k=2.0)
    y.backward(torch.tensor(np.random.default_rng(0).normal(size=x.shape)))
    attributes = {"size": 5, "alpha": 0.5, "beta": 0.75, "bias": 2.0}
    (found,) = check_vjp(Case("LRN", [x], attributes))
    np.testing.assert_allclose(found, leaf.grad, atol=1e-9)
