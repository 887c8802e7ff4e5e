"""Semantic pullback, arXiv 2507.22832 v6, with the choices of `onnxplain.export.methods`.

Its temperature is a factor on those of the paper: ReLU 0.6, GELU 1.0, SiLU 1.6, max-pool 0.3.
"""

from __future__ import annotations

from onnxplain.reference.pytorch import activations, gates, norms
from onnxplain.reference.pytorch.pools import soft_max_pools
from onnxplain.reference.pytorch.replace import Replacements

MAX_POOL = 0.3

REPLACEMENTS = Replacements(
    {
        **activations.FUNCTIONS,
        **norms.FUNCTIONS,
        **gates.FUNCTIONS,
        **soft_max_pools(MAX_POOL, through_weights=False),
    },
    activations.MODULES,
)
