"""Semantic pullback, arXiv 2507.22832 v6, with the choices of `onnxplain.export.methods`.

Its temperature is a factor on those of the rules but attention's; the defaults are the paper's.
"""

from __future__ import annotations

from onnxplain.reference.pytorch import activations, gates, norms
from onnxplain.reference.pytorch.pools import soft_max_pools
from onnxplain.reference.pytorch.replace import Replacements, Temperatures

TEMPERATURES = Temperatures(relu=0.6, gelu=1.0, silu=1.6, max_pool=0.3)

REPLACEMENTS = Replacements(
    {
        **activations.FUNCTIONS,
        **norms.FUNCTIONS,
        **gates.FUNCTIONS,
        **soft_max_pools(through_weights=False),
    },
    activations.MODULES,
)
