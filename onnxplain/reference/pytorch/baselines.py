"""Guided backpropagation, arXiv 1412.6806, and deconvnet, arXiv 1311.2901."""

from __future__ import annotations

from onnxplain.reference.pytorch.clamps import rectifiers
from onnxplain.reference.pytorch.replace import Replacements

GUIDED = Replacements(rectifiers(lambda z, g, top, T: (z > 0) & (z < top) & (g > 0)))
DECONVNET = Replacements(rectifiers(lambda z, g, top, T: g > 0))
