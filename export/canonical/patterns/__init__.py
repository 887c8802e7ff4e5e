"""Patterns: composite operations recognised however an exporter spelled them.

Each file holds one kind: `activations` by what they compute, `normalisations` and `weighting`
(softmax, attention, gates) by their structure. What is found becomes a standard operator or a
composite of `onnxplain.export.composites`, so that a method can name it.
"""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir
from onnx_ir.passes import common

from onnxplain.export import composites
from onnxplain.export.autodiff import operator_name
from onnxplain.export.canonical.bodies import in_bodies
from onnxplain.export.canonical.patterns.activations import (
    drop_idle_relus,
    recognise_activations,
)
from onnxplain.export.canonical.patterns.normalisations import (
    recognise_l2_normalisations,
    recognise_normalisations,
    recognise_response_normalisations,
)
from onnxplain.export.canonical.patterns.reductions import keep_reduced_axes, unstack_extrema
from onnxplain.export.canonical.patterns.spelling import made_by, single_user
from onnxplain.export.canonical.patterns.weighting import recognise_softmax, recognise_weights

NAMES = {
    "Gelu": "GELU",
    "onnxplain::Swish": "SiLU/Swish",
    "HardSwish": "Hardswish",
    "Mish": "Mish",
    "LayerNormalization": "LayerNorm",
    "onnxplain::RMSNormalization": "RMSNorm",
    "onnxplain::GlobalResponseNormalization": "GRN",
    "onnxplain::L2Normalization": "L2 norm",
    "InstanceNormalization": "InstanceNorm",
    "onnxplain::AttentionWeights": "attention",
    "onnxplain::SigmoidGate": "gate",
    "onnxplain::HardSigmoidGate": "gate",
}
"""Operator → the name of its pattern."""


def recognise(model: ir.Model, was_half: bool = False, exact: bool = False) -> dict[str, int]:
    """Rewrite the patterns of a canonical forward as operators and composites, in place.

    Shapes must be known before and are known after; values change by rounding alone. The final
    Softmax or Sigmoid over the classes must have been cut off already.

    Args:
        was_half: whether the graph's constants were rounded to half precision.
        exact: whether an activation may differ by float64's rounding alone.

    Returns:
        How many of each pattern the graph holds, rewritten or there before: name → count.
    """
    graph = model.graph
    in_bodies(model, lambda body: recognise(body, was_half, exact))
    keep_reduced_axes(graph)
    unstack_extrema(graph)
    recognise_softmax(graph)
    drop_idle_relus(graph)
    recognise_activations(graph, 2e-3 if was_half else 1e-14 if exact else 2e-6)
    recognise_normalisations(graph)
    recognise_response_normalisations(graph)
    recognise_l2_normalisations(graph)
    common.RemoveUnusedNodesPass()(model)  # what was replaced does not count as a use of a weight
    recognise_weights(graph)
    common.RemoveUnusedNodesPass()(model)
    composites.define(model)
    return dict(Counter(pattern_of(node) for node in graph if operator_name(node) in NAMES))


def pattern_of(node: ir.Node) -> str:
    """The name of a node's pattern, or its operator's.

    A GroupNorm is exported as InstanceNormalization between two reshapes.
    """
    reshaped = made_by(node.inputs[0], "Reshape") is not None
    after = single_user(node.outputs[0])
    if node.op_type == "InstanceNormalization" and reshaped and after is not None:
        return "GroupNorm" if after.op_type == "Reshape" else "InstanceNorm"
    return NAMES.get(operator_name(node), node.op_type)
