"""Quantisers, explained straight through (Bengio et al., arXiv 1308.3432).

Rounding has a gradient of zero almost everywhere. The straight-through estimator takes
Q∘DQ, which differs from the identity by rounding and saturation only, for the identity: a
cotangent passes it unchanged. Between the two, the cotangent of a quantised value is that of the
number it stands for. Weights stay stored as integers; nothing flows to them, nor to a scale.
"""

from __future__ import annotations

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.autodiff import Cotangents, Node
from onnxplain.export.vjps.table import register_vjp


@register_vjp("QuantizeLinear", "DequantizeLinear")
def straight_through(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    return g
