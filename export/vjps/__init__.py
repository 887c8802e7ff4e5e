"""The vector-Jacobian product of each operator, one file per kind."""

from onnxplain.export.vjps import (  # noqa: F401  each registers its rules
    activations,
    arithmetic,
    composites,
    einsum,
    indexing,
    linear,
    normalisation,
    pooling,
    quantisers,
    recurrent,
    reductions,
    sampling,
    shaping,
)
from onnxplain.export.vjps.table import VJPS, register_vjp

__all__ = ["VJPS", "register_vjp"]
