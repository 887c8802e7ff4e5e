"""Excitation pullback, arXiv 2507.22832 v1."""

from __future__ import annotations

import torch

from onnxplain.reference.pytorch.clamps import rectifiers
from onnxplain.reference.pytorch.pools import soft_max_pools
from onnxplain.reference.pytorch.replace import Replacements

REPLACEMENTS = Replacements(
    {
        **rectifiers(lambda z, g, top, T: torch.sigmoid(z / T.relu)),
        **soft_max_pools(through_weights=True),
    }
)
