"""When two answers of ONNX Runtime are the same."""

from __future__ import annotations

import numpy as np
import pytest

from onnxplain.reference.outputs import is_same


@pytest.mark.parametrize(
    ("found", "same"),
    [
        ([1.0, 2.0, -np.inf, np.nan], True),
        ([1.0 + 1e-6, 2.0, -np.inf, np.nan], True),
        ([1.1, 2.0, -np.inf, np.nan], False),
        ([1.0, 2.0, 3.0, np.nan], False),
        ([1.0, 2.0, np.inf, np.nan], False),
        ([1.0, np.nan, -np.inf, np.nan], False),
    ],
)
def test_rounding_is_allowed_beside_what_is_not_finite(found: list[float], same: bool) -> None:
    expected = np.array([1.0, 2.0, -np.inf, np.nan], np.float32)
    assert is_same(np.array(found, np.float32), expected, 1e-4) is same


def test_whole_numbers_are_equal() -> None:
    assert is_same(np.array([1, 2]), np.array([1, 2]), 1.0)
    assert not is_same(np.array([1, 2]), np.array([1, 3]), 1.0)
