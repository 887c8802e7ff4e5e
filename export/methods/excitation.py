"""Excitation pullback: Satkiewicz, "Tapping into the Black Box", arXiv 2507.22832 v1.

It speaks of ReLU and max-pooling networks. ReLU, ReLU6 (our extension) and MaxPool are soft here;
GELU, SiLU and the other smooth activations, every normalisation, gates and attention keep their
ordinary gradient, so that on a network without ReLU and MaxPool it *is* the gradient. `semantic`
is the method for those.
"""

from __future__ import annotations

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.autodiff import Cotangents, Node
from onnxplain.export.methods.clips import is_rectifier
from onnxplain.export.methods.method import (
    TEMPERATURE,
    Method,
    Temperature,
    register_method,
)
from onnxplain.export.operators import VJPS
from onnxplain.export.parameters import Parameter
from onnxplain.export.windows import window_of
from onnxplain.kernels.bodies import soft_gate, soft_max_pool_grad


def excited_relu(op: OpBuilder, node: Node, g: ir.Value, relu: Temperature) -> Cotangents:
    """g · σ(z / T): how excited a neuron is, not whether it is; all of z counts."""
    return soft_gate(op, node.inputs[0], g, relu)


def excited_clip(op: OpBuilder, node: Node, g: ir.Value, relu: Temperature) -> Cotangents:
    """ReLU6's gate is ReLU's, with no upper cut: a saturated neuron is a highly excited one.

    Our extension of the paper. So is that of a ReLU bounded by 10⁴ or more, which cuts nothing in
    practice; other clips keep their gradient.
    """
    return excited_relu(op, node, g, relu) if is_rectifier(node) else VJPS["Clip"](op, node, g)


def excited_max_pool(
    op: OpBuilder, node: Node, g: ir.Value, *_indices: None, max_pool: Temperature
) -> Cotangents:
    """The softmax-weighted pool's gradient, through its weights too."""
    x = node.inputs[0]
    return soft_max_pool_grad(op, x, g, window_of(node, x, node.outputs[0]), max_pool)


register_method(
    Method(
        "excitation",
        {"Relu": excited_relu, "Clip": excited_clip, "MaxPool": excited_max_pool},
        (
            Parameter(TEMPERATURE, 0.3, "how soft the gates and pools are"),
            Parameter("relu", None, "the temperature of ReLU and ReLU6, if it is to be another"),
            Parameter("max_pool", None, "the temperature of MaxPool, if it is to be another"),
        ),
        help="what the class looks like to the network, in colours",
        needs="ReLU or MaxPool",
        source="Satkiewicz 2025, arXiv 2507.22832 v1",
        aliases=("excitation-pullback",),
    )
)
