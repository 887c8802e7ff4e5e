"""The gradient, and the baselines that change ReLU's rule."""

from __future__ import annotations

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.autodiff import Cotangents, Node
from onnxplain.export.methods.clips import is_rectifier
from onnxplain.export.methods.method import Method, register_method
from onnxplain.export.operators import VJPS


def guided(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """The gradient of what is positive: g · 1[z > 0] · 1[g > 0] (Springenberg et al. 2015)."""
    if node.op_type == "Clip" and not is_rectifier(node):
        return VJPS["Clip"](op, node, g)
    return VJPS[node.op_type](op, node, op.Relu(g))


def deconvnet(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """g · 1[g > 0], whatever came in (Zeiler & Fergus 2014)."""
    if node.op_type == "Clip" and not is_rectifier(node):
        return VJPS["Clip"](op, node, g)
    return op.Relu(g)


register_method(
    Method(
        "gradient",
        help="how the logit changes with each pixel",
        source="Simonyan et al. 2014, arXiv 1312.6034",
        aliases=("saliency", "vanilla-gradient", "gradients"),
    )
)
register_method(
    Method(
        "guided",
        {"Relu": guided, "Clip": guided},
        help="fine structure, little of it the class's own",
        needs="ReLU",
        source="Springenberg et al. 2015, arXiv 1412.6806",
        aliases=("guided-backprop", "guided-backpropagation", "guided-gradient"),
    )
)
register_method(
    Method(
        "deconvnet",
        {"Relu": deconvnet, "Clip": deconvnet},
        help="fine structure, where max pools choose; without any the same for every image",
        needs="ReLU",
        source="Zeiler & Fergus 2014, arXiv 1311.2901",
        aliases=("deconvolution", "deconv"),
    )
)
register_method(
    Method(
        "input-x-gradient",
        times_input=True,
        help="what each pixel adds to the logit, in a network without biases",
        source="Shrikumar et al. 2017, arXiv 1605.01713",
        aliases=("input*gradient", "gradient-x-input", "gradient*input", "input-times-gradient"),
    )
)
