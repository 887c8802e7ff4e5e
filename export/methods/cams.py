"""Class activation maps: what a layer's activations A, weighted by the target, show where.

g is the ordinary gradient of the target's logit with respect to A, so the sweep stops at the
layer. Each formula here gives Σ_k over the channels; its ReLU, the map, follows in
`onnxplain.export.heads.activation_map`.
"""

from __future__ import annotations

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.methods.method import Method, register_method


def grad_cam(op: OpBuilder, A: ir.Value, g: ir.Value, axes: tuple[int, int, int]) -> ir.Value:
    """Σ_k α_k A_k, α_k = mean_ij g_kij (Selvaraju et al. 2017, arXiv 1610.02391)."""
    height, width, channels = axes
    alpha = op.ReduceMean(g, [height, width], keepdims=1)
    return op.ReduceSum(op.Mul(alpha, A), [channels], keepdims=0)


def layer_cam(op: OpBuilder, A: ir.Value, g: ir.Value, axes: tuple[int, int, int]) -> ir.Value:
    """Σ_k ReLU(g_k) A_k (Jiang et al. 2021, LayerCAM)."""
    return op.ReduceSum(op.Mul(op.Relu(g), A), [axes[2]], keepdims=0)


def hires_cam(op: OpBuilder, A: ir.Value, g: ir.Value, axes: tuple[int, int, int]) -> ir.Value:
    """Σ_k g_k A_k (Draelos & Carin 2020, arXiv 2011.08891)."""
    return op.ReduceSum(op.Mul(g, A), [axes[2]], keepdims=0)


for name, formula, help, source in (
    ("gradcam", grad_cam, "where, coarsely", "Selvaraju et al. 2017, arXiv 1610.02391"),
    ("layercam", layer_cam, "where, finer at earlier layers", "Jiang et al. 2021, IEEE TIP 30"),
    ("hirescam", hires_cam, "where, and nowhere else", "Draelos & Carin 2020, arXiv 2011.08891"),
):
    register_method(
        Method(
            name,
            activation_map=formula,
            help=help,
            needs="a layer with height and width",
            source=source,
            forwards=1,
        )
    )
