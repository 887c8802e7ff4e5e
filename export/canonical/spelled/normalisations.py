"""Normalisations that opset 20 lacks, or has in another form."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxplain.export.canonical.emit import Emitted, Emitter, integers
from onnxplain.export.tensors import attribute, rank, size_of, static


def rms_normalization(emit: Emitter, node: ir.Node) -> Emitted:
    """x / √(mean(x²) + ε) · scale, the mean over `axis` and all after it."""
    x, scale = node.inputs[:2]
    assert x is not None
    first = attribute(node, "axis", -1)
    axes = range(first if first < 0 else first - rank(x), 0)
    epsilon = np.array(node.attributes.get_float("epsilon", 1e-5), np.float32)
    mean = emit("ReduceMean", emit("Mul", x, x), integers(*axes), keepdims=1)
    normalized = emit("Div", x, emit("Sqrt", emit("Add", mean, epsilon)))
    return emit("Mul", normalized, scale)


def group_normalization(emit: Emitter, node: ir.Node) -> Emitted:
    """InstanceNormalization of groups of channels, as PyTorch's exporter spells it.

    Scale and bias are per group in opset 18, and per channel from opset 21 on.
    """
    x, scale, bias = node.inputs[:3]
    assert x is not None
    assert scale is not None
    groups = attribute(node, "num_groups", 1)
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    grouped = emit("Reshape", x, integers(0, groups, -1))
    ones, zeros = np.ones(groups, np.float32), np.zeros(groups, np.float32)
    y = emit("InstanceNormalization", grouped, ones, zeros, epsilon=epsilon)

    def affine(y: ir.Value, behind: int) -> ir.Value:
        axes = integers(*range(1, 1 + behind))
        scaled = emit("Mul", y, emit("Unsqueeze", scale, axes))
        return emit("Add", scaled, emit("Unsqueeze", bias, axes))

    per_group = size_of(scale, 0) == groups
    if per_group:
        y = affine(y, 1)
    y = emit("Reshape", y, integers(0, *static(x, 1)))
    return y if per_group else affine(y, rank(x) - 2)
