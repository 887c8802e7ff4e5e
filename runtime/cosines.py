"""How alike two stacks of arrays are."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def cosines(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """The cosine of each row of `a` to that of `b`, in float64, [N].

    Rows are what lies along the first axis. Two zeros are alike: 1. Where only one is zero it is 0,
    and where there is a NaN it is NaN.
    """
    x, y = (np.asarray(v, np.float64) for v in (a, b))
    x, y = x.reshape(len(x), -1), y.reshape(len(y), -1)
    length_x, length_y = np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1)
    product = length_x * length_y
    cosine = (x * y).sum(axis=1) / np.where(product == 0, 1, product)
    return np.where((length_x == 0) & (length_y == 0), 1.0, cosine)
