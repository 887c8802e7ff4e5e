"""The rows of the operators, with the vector-Jacobian product of each, one file per kind."""

from onnxplain.export.vjps import (  # noqa: F401  each writes its rows
    activations,
    arithmetic,
    comparisons,
    composites,
    control_flow,
    einsum,
    indexing,
    linear,
    normalisation,
    pooling,
    quantisers,
    recurrent,
    reductions,
    regions,
    sampling,
    shaping,
)
