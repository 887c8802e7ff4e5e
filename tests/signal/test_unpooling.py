"""The portable max-pool and its way back are PyTorch's, to the bit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from onnxplain.signal.unpooling import pool, unpool


@given(
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(0, 2**31),
    st.integers(2, 100),
)
@settings(max_examples=60, deadline=None)
def test_values_go_back_where_pytorch_puts_them_ties_included(
    n: int, c: int, h: int, w: int, seed: int, values: int
) -> None:
    """Of few values many tie; so do the zeros that a ReLU leaves."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-2, values, (n, c, 2 * h, 2 * w), generator=generator).float().relu()
    y = torch.randn(n, c, h, w, generator=generator)
    pooled, places = pool(x)
    expected, indices = functional.max_pool2d(x, 2, 2, return_indices=True)
    assert torch.equal(pooled, expected)
    assert torch.equal(unpool(y, places), functional.max_unpool2d(y, indices, 2, 2))


def test_a_window_of_zeros_gives_its_value_to_the_first_place() -> None:
    _, places = pool(torch.zeros(1, 1, 2, 2))
    assert unpool(torch.full((1, 1, 1, 1), 5.0), places).tolist() == [[[[5.0, 0.0], [0.0, 0.0]]]]


@pytest.mark.parametrize("place", range(4))
def test_the_greatest_is_found_in_every_place(place: int) -> None:
    x = torch.zeros(4)
    x[place] = 1
    pooled, places = pool(x.view(1, 1, 2, 2))
    assert torch.equal(unpool(pooled, places).flatten(), x)
