"""The explanation methods: what each does to the ordinary backward pass.

A method is a small table of rules laid over `onnxplain.export.vjps`. A rule of a method with a
temperature takes it as the keyword `T`: a number, or the graph's input of that name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.errors import SourceError
from onnxplain.export.autodiff import Cotangents, Node, Rule
from onnxplain.export.vjps import VJPS
from onnxplain.export.windows import Window
from onnxplain.kernels.bodies import soft_gate, soft_max_pool_grad


@dataclass(frozen=True)
class Method:
    """A backward pass: the operators whose rule differs from the ordinary gradient.

    `temperature` is the default one, `None` for a method without; `times_input` multiplies the
    result by the image.
    """

    name: str
    overrides: Mapping[str, Rule] = field(default_factory=dict)
    temperature: float | None = None
    times_input: bool = False

    def rules(self, temperature: float | ir.Value | None) -> dict[str, Rule]:
        """The whole table that the sweep uses, with the temperature in place."""
        overrides = dict(self.overrides)
        if self.temperature is not None:
            overrides = {name: partial(rule, T=temperature) for name, rule in overrides.items()}
        return VJPS | overrides


# ----- excitation pullback: Satkiewicz, "Tapping into the Black Box", arXiv 2507.22832 v1 -----


def excited_relu(op: OpBuilder, node: Node, g: ir.Value, T: float | ir.Value) -> Cotangents:
    """g · σ(z / T): how excited a neuron is, not whether it is; all of z counts."""
    return soft_gate(op, node.inputs[0], g, T)


def excited_clip(op: OpBuilder, node: Node, g: ir.Value, T: float | ir.Value) -> Cotangents:
    """ReLU6's gate is ReLU's, with no upper cut: a saturated neuron is a highly excited one.

    Our extension of the paper. Other clips keep their gradient.
    """
    return excited_relu(op, node, g, T) if is_relu6(node) else VJPS["Clip"](op, node, g)


def excited_max_pool(
    op: OpBuilder, node: Node, g: ir.Value, *_indices: None, T: float | ir.Value
) -> Cotangents:
    """The softmax-weighted pool's gradient, through its weights too."""
    x = node.inputs[0]
    return soft_max_pool_grad(op, x, g, Window.of(node, x, node.outputs[0]), T)


def is_relu6(node: Node) -> bool:
    """Whether a Clip is ReLU6: min = 0, max = 6."""
    bounds = [ir.convenience.get_const_tensor(v) for v in node.inputs[1:] if v is not None]
    return [None if b is None else float(b.numpy()) for b in bounds] == [0.0, 6.0]


# ----- baselines -----


def guided(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """The gradient of what is positive: g · 1[z > 0] · 1[g > 0] (Springenberg et al. 2015)."""
    if node.op_type == "Clip" and not is_relu6(node):
        return VJPS["Clip"](op, node, g)
    return VJPS[node.op_type](op, node, op.Relu(g))


def deconvnet(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """g · 1[g > 0], whatever came in (Zeiler & Fergus 2014)."""
    if node.op_type == "Clip" and not is_relu6(node):
        return VJPS["Clip"](op, node, g)
    return op.Relu(g)


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            "excitation",
            {"Relu": excited_relu, "Clip": excited_clip, "MaxPool": excited_max_pool},
            temperature=0.3,
        ),
        Method("gradient"),
        Method("guided", {"Relu": guided, "Clip": guided}),
        Method("deconvnet", {"Relu": deconvnet, "Clip": deconvnet}),
        Method("input-x-gradient", times_input=True),
    )
}


def get_method(name: str) -> Method:
    """The method of that name.

    Raises:
        SourceError: there is none; the message lists those there are.
    """
    if name not in METHODS:
        raise SourceError(f"no method {name!r}; choose one of {', '.join(METHODS)}")
    return METHODS[name]


def check_temperature(method: Method, temperature: float | None) -> float | None:
    """The temperature to use: the one asked for, or the method's own.

    Raises:
        SourceError: the method has none, or it is not a positive number.
    """
    if temperature is None:
        return method.temperature
    if method.temperature is None:
        raise SourceError(f"method {method.name!r} has no temperature; leave it out")
    if not (np.isfinite(temperature) and temperature > 0):
        raise SourceError(f"the temperature must be a positive number, not {temperature}")
    return float(temperature)
