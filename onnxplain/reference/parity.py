"""How far an array is from what it should be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxplain.runtime.cosines import cosines

RELATIVE_L2, COSINE = 1e-3, 0.9999
"""The bounds within which a graph agrees with its reference."""


@dataclass(frozen=True)
class Parity:
    """How far an array is from its reference.

    `max_abs` is the largest difference of two elements; `relative_l2` is ‖found − reference‖ ÷
    ‖reference‖, infinite where only the reference is zero; `cosine` is that of the angle between
    them, 0 where one is zero. Two zeros are equal: 0, 0, 1. With a NaN none of the three passes a
    bound.
    """

    max_abs: float
    relative_l2: float
    cosine: float

    @property
    def agrees(self) -> bool:
        """Whether the relative L2 and the cosine are within the bounds."""
        return self.relative_l2 <= RELATIVE_L2 and self.cosine >= COSINE

    @classmethod
    def of(cls, found: npt.ArrayLike, reference: npt.ArrayLike) -> Parity:
        """Compare two arrays of one shape, in float64.

        Raises:
            ValueError: the shapes differ.
        """
        a, b = np.asarray(found, np.float64), np.asarray(reference, np.float64)
        if a.shape != b.shape:
            raise ValueError(f"shapes differ: {a.shape} and, of the reference, {b.shape}")
        difference, norm = (float(np.linalg.norm(v)) for v in (a - b, b))
        return cls(
            max_abs=float(np.abs(a - b).max(initial=0)),
            relative_l2=ratio(difference, norm),
            cosine=float(cosines([a], [b])[0]),
        )


def ratio(error: float, size: float) -> float:
    """error ÷ size; where the size is zero, 0 if the error is too and else infinite."""
    if size == 0:
        return 0.0 if error == 0 else float("inf")
    return error / size
