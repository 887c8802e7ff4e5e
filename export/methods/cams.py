"""Class activation maps: what a layer's activations A, weighted by the target, show where.

g is the ordinary gradient of the target's logit with respect to A, so the sweep stops at the
layer. Each formula here gives Σ_k over the channels; its ReLU, the map, follows in
`onnxplain.export.heads.activation_map`.
"""

from __future__ import annotations

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.methods.eigen import eigen_cam, eigen_grad_cam
from onnxplain.export.methods.method import Method, register_method
from onnxplain.export.methods.perturbed import likely, lost, masked, without
from onnxplain.export.methods.probes import Probe


def weighted_sum(op: OpBuilder, A: ir.Value, w: ir.Value, axes: tuple[int, int, int]) -> ir.Value:
    """Σ_k w_k A_k."""
    return op.ReduceSum(op.Mul(w, A), [axes[2]], keepdims=0)


def grad_cam(op: OpBuilder, A: ir.Value, g: ir.Value, axes: tuple[int, int, int]) -> ir.Value:
    """Σ_k α_k A_k, α_k = mean_ij g_kij (Selvaraju et al. 2017, arXiv 1610.02391)."""
    height, width, _ = axes
    alpha = op.ReduceMean(g, [height, width], keepdims=1)
    return weighted_sum(op, A, alpha, axes)


def grad_cam_plus_plus(
    op: OpBuilder, A: ir.Value, g: ir.Value, axes: tuple[int, int, int]
) -> ir.Value:
    """Σ_k w_k A_k, w_k = Σ_ij α_kij ReLU(g_kij) (Chattopadhay et al. 2018, arXiv 1710.11063).

    α = g² / (2g² + g³ Σ_ij A_k) = 1 / (2 + g Σ_ij A_k), which counts only where g is positive.
    """
    height, width, _ = axes
    total = op.ReduceSum(A, [height, width], keepdims=1)
    weighted = op.Div(op.Relu(g), op.Add(op.Mul(g, total), 2.0))
    weight = op.ReduceSum(weighted, [height, width], keepdims=1)
    return weighted_sum(op, A, weight, axes)


def x_grad_cam(op: OpBuilder, A: ir.Value, g: ir.Value, axes: tuple[int, int, int]) -> ir.Value:
    """Σ_k w_k A_k, w_k = Σ_ij g_kij A_kij / Σ_ij A_kij (Fu et al. 2020, arXiv 2008.02312).

    0 for a channel whose activations add up to 0.
    """
    height, width, _ = axes
    total = op.ReduceSum(A, [height, width], keepdims=1)
    moved = op.ReduceSum(op.Mul(g, A), [height, width], keepdims=1)
    none = op.Equal(total, 0.0)
    weight = op.Where(none, 0.0, op.Div(moved, op.Where(none, 1.0, total)))
    return weighted_sum(op, A, weight, axes)


def layer_cam(op: OpBuilder, A: ir.Value, g: ir.Value, axes: tuple[int, int, int]) -> ir.Value:
    """Σ_k ReLU(g_k) A_k (Jiang et al. 2021, LayerCAM)."""
    return weighted_sum(op, A, op.Relu(g), axes)


def hires_cam(op: OpBuilder, A: ir.Value, g: ir.Value, axes: tuple[int, int, int]) -> ir.Value:
    """Σ_k g_k A_k (Draelos & Carin 2020, arXiv 2011.08891)."""
    return weighted_sum(op, A, g, axes)


_ALIASES = {"gradcam++": ("gradcampp", "gradcam-plus-plus")}

for name, formula, help, source in (
    ("gradcam", grad_cam, "where, coarsely", "Selvaraju et al. 2017, arXiv 1610.02391"),
    (
        "gradcam++",
        grad_cam_plus_plus,
        "where, of several objects each",
        "Chattopadhay et al. 2018, arXiv 1710.11063",
    ),
    (
        "xgradcam",
        x_grad_cam,
        "where, weights adding up to the logit",
        "Fu et al. 2020, arXiv 2008.02312",
    ),
    ("layercam", layer_cam, "where, finer at earlier layers", "Jiang et al. 2021, IEEE TIP 30"),
    ("hirescam", hires_cam, "where, and nowhere else", "Draelos & Carin 2020, arXiv 2011.08891"),
    (
        "eigencam",
        eigen_cam,
        "where a layer's activations vary most, whatever the class",
        "Muhammad & Yeasin 2020, arXiv 2008.00299",
    ),
    (
        "eigengradcam",
        eigen_grad_cam,
        "where, in one coherent area",
        "Muhammad & Yeasin 2020, arXiv 2008.00299",
    ),
):
    register_method(
        Method(
            name,
            activation_map=formula,
            help=help,
            needs="a layer of maps or of tokens",
            source=source,
            forwards=1,
            aliases=_ALIASES.get(name, ()),
        )
    )

for name, probe, help, source in (
    (
        "scorecam",
        Probe(masked, likely, of_image=True, cost="1"),
        "where, by what the class becomes if that alone is left of the image",
        "Wang et al. 2020, arXiv 1910.01279",
    ),
    (
        "ablationcam",
        Probe(without, lost, of_image=False, cost="the layers behind"),
        "where, by what the class loses without each channel",
        "Desai & Ramaswamy 2020, WACV",
    ),
):
    register_method(
        Method(
            name,
            activation_map=weighted_sum,
            probe=probe,
            help=help,
            needs="a layer of maps or of tokens",
            source=source,
            forwards=1,
        )
    )
