"""Semantic pullback: Satkiewicz, "Tapping into the Black Box", arXiv 2507.22832 v6.

**The principle.** What is nonlinear in a network multiplies its input by something computed from
that input: an activation is z · gate(z), a normalisation (z − μ) · 1/σ, attention a sum of values
times weights, a max-pool a sum of pixels times weights, squeeze-and-excitation x · gate(x). The
forward pass stays exact. The backward pass holds that something *constant*, so that it is linear in
the cotangent and explains by what the network let through; and where it is a gate of an activation
or a pool's choice, it is *softened* by a temperature: gate(z / T).

**The paper's**, with its temperatures:

    Relu            g · Φ(z/T)                        T = 0.6    Φ the normal distribution function
    Gelu            g · Φ(z/T)                        T = 1.0    either spelling, by erf or by tanh
    Swish, α = 1    g · σ(z/T)                        T = 1.6    SiLU
    MaxPool         g · w_i, w = softmax(x/T)         T = 0.3    added up over the windows
    LayerNorm       g · γ / √(variance + ε)                      over any axes
    attention       only through the values, by the weights softmax(A/T), T = 1.0: the forward's

**Ours**, by the same principle. A smooth self-gate has the temperature of SiLU, the nearest of the
paper's; whatever is a rectifier with a hard or a rounded corner has ReLU's gate.

    Swish           g · σ(αz/T)                       T = 1.6    QuickGELU: α = 1.702
    HardSwish       g · clip(z/(6T) + ½, 0, 1)        T = 1.6    its own gate, SiLU's in three lines
    Mish            g · tanh(softplus(z/T))           T = 1.6    its own gate
    LeakyRelu       g · (α + (1 − α) Φ(z/T))          T = 0.6    PRelu the same
    Elu, Celu, Softplus, ThresholdedRelu (z − α for z), and what else is of the kind RECTIFIER
                    g · Φ(z/T)                        T = 0.6    what they do below zero is bounded
    Selu            g · γ Φ(z/T)                      T = 0.6
    Clip(0, 6)      g · Φ(z/T)                        T = 0.6    no upper cut: a saturated neuron is
                                                                 a highly excited one
    Instance-, Group-, RMS-, LpNormalization, LRN: g times the forward's factor, statistics held
    GlobalResponseNormalization: g · (1 + γ n), n the forward's response
    SigmoidGate, HardSigmoidGate (squeeze-and-excitation, gated linear units): nothing flows into
                    the gate; what it multiplies gets g · gate, as it stands

Everything else keeps its ordinary gradient: convolutions and other linear maps, BatchNorm (linear
in inference), Tanh, Softsign, a Sigmoid or Softmax that is no gate, GlobalMaxPool.

**The parameters.** `relu`, `gelu`, `silu`, `max_pool`, `attention` are the temperatures, and what
the rules take as their T; `temperature` is one factor on all of them but attention's: 1 is the
paper, 2 doubles every one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial, wraps
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.contract.explain import AscentDefaults
from onnxplain.export.autodiff import Cotangents, Node, Rule, cotangent_of, operator_name
from onnxplain.export.methods.clips import is_rectifier
from onnxplain.export.methods.method import (
    TEMPERATURE,
    Method,
    Temperature,
    register_method,
    times,
)
from onnxplain.export.methods.relevance import layer_on
from onnxplain.export.operators import VJPS, Kind, Rules, row_of
from onnxplain.export.parameters import Parameter
from onnxplain.export.tensors import (
    attribute,
    axis_from_end,
    constant,
    rank,
)
from onnxplain.export.values import is_weight
from onnxplain.export.vjps.normalisation import lrn_scale, lrn_window
from onnxplain.export.windows import window_of
from onnxplain.kernels.bodies import normal_gate, phi, scaled, soft_gate, weighted_pool_grad

# ----- what depends on the image beside the operand that a rule is of -----


def with_parameters(rule: Rule) -> Rule:
    """A scale, a bias or a slope that depends on the image has its ordinary gradient.

    Args:
        rule: that of the first operand.
    """

    @wraps(rule)
    def every(op: OpBuilder, node: Node, g: ir.Value, *rest: None, **T: Temperature) -> Cotangents:
        def of(index: int) -> ir.Value:
            ordinary = VJPS[operator_name(node)](op, node, g)
            found = cotangent_of(op, node, ordinary, index)
            assert found is not None
            return found

        first = rule(op, node, g, *rest, **T)
        assert isinstance(first, ir.Value)
        return [first, *(partial(of, i) for i in range(1, len(node.inputs)))]

    return every


# ----- rectifiers: z · 1[z > 0], and the like -----


def rectifier(op: OpBuilder, node: Node, g: ir.Value, relu: Temperature) -> Cotangents:
    """g · Φ(z / T)."""
    return normal_gate(op, node.inputs[0], g, relu)


def clip(op: OpBuilder, node: Node, g: ir.Value, relu: Temperature) -> Cotangents:
    """The gate of ReLU6, or of a ReLU with a bound far away, is ReLU's; other clips keep their
    gradient."""
    return rectifier(op, node, g, relu) if is_rectifier(node) else VJPS["Clip"](op, node, g)


def thresholded_relu(op: OpBuilder, node: Node, g: ir.Value, relu: Temperature) -> Cotangents:
    """g · Φ((z − α) / T)."""
    above = op.Sub(node.inputs[0], node.attributes.get_float("alpha", 1.0))
    return normal_gate(op, above, g, relu)


def selu(op: OpBuilder, node: Node, g: ir.Value, relu: Temperature) -> Cotangents:
    """g · γ Φ(z / T)."""
    gamma = node.attributes.get_float("gamma", 1.0507009873554805)
    return normal_gate(op, node.inputs[0], op.Mul(g, gamma), relu)


def leaky_relu(op: OpBuilder, node: Node, g: ir.Value, relu: Temperature) -> Cotangents:
    """g · (α + (1 − α) Φ(z / T))."""
    alpha = node.attributes.get_float("alpha", 0.01)
    gate = phi(op, node.inputs[0], relu)
    return op.Mul(g, op.Add(op.Mul(gate, 1.0 - alpha), alpha))


@with_parameters
def prelu(op: OpBuilder, node: Node, g: ir.Value, relu: Temperature) -> Cotangents:
    """As LeakyRelu, with a learned α."""
    x, alpha = node.inputs
    gate = phi(op, x, relu)
    return op.Mul(g, op.Add(op.Mul(gate, op.Sub(1.0, alpha)), alpha))


# ----- smooth self-gates: z · gate(z) -----


def gelu(op: OpBuilder, node: Node, g: ir.Value, gelu: Temperature) -> Cotangents:
    """g · Φ(z / T)."""
    return normal_gate(op, node.inputs[0], g, gelu)


def swish(op: OpBuilder, node: Node, g: ir.Value, silu: Temperature) -> Cotangents:
    """g · σ(αz / T)."""
    alpha = node.attributes.get_float("alpha", 1.0)
    return soft_gate(op, node.inputs[0], g, times(op, silu, 1.0 / alpha))


def hard_swish(op: OpBuilder, node: Node, g: ir.Value, silu: Temperature) -> Cotangents:
    """g · clip(z / (6T) + ½, 0, 1)."""
    slope = scaled(op, node.inputs[0], times(op, silu, 6.0))
    return op.Mul(g, op.Clip(op.Add(slope, 0.5), 0.0, 1.0))


def mish(op: OpBuilder, node: Node, g: ir.Value, silu: Temperature) -> Cotangents:
    """g · tanh(softplus(z / T))."""
    return op.Mul(g, op.Tanh(op.Softplus(scaled(op, node.inputs[0], silu))))


# ----- pools -----


def max_pool(
    op: OpBuilder, node: Node, g: ir.Value, *_indices: None, max_pool: Temperature
) -> Cotangents:
    """g · w_i with w = softmax(x / T) over the window."""
    x = node.inputs[0]
    window = window_of(node, x, node.outputs[0])
    return weighted_pool_grad(op, x, g, window, max_pool)


# ----- normalisations: (z − μ) · γ/σ with μ and σ held constant -----


def deviation(
    op: OpBuilder, x: ir.Value, axes: Sequence[int], epsilon: float, centred: bool = True
) -> ir.Value:
    """√(variance + ε) over `axes` (from the end), which stay with size 1; the root mean square
    where not `centred`."""
    apart = op.Sub(x, op.ReduceMean(x, axes, keepdims=1)) if centred else x
    variance = op.ReduceMean(op.Mul(apart, apart), axes, keepdims=1)
    return op.Sqrt(op.Add(variance, epsilon))


@with_parameters
def layer_normalization(op: OpBuilder, node: Node, g: ir.Value, *_statistics: None) -> Cotangents:
    """g · γ / √(variance + ε); RMSNormalization takes the mean for 0."""
    x, scale = node.inputs[:2]
    axes = list(range(axis_from_end(node, -1, x), 0))
    centred = node.op_type == "LayerNormalization"
    sigma = deviation(op, x, axes, node.attributes.get_float("epsilon", 1e-5), centred)
    return op.Div(op.Mul(g, scale), sigma)


@with_parameters
def instance_normalization(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """g · γ / √(variance + ε), the variance that of each channel of each image."""
    x, scale, _ = node.inputs
    axes = list(range(2 - rank(x), 0))
    sigma = deviation(op, x, axes, node.attributes.get_float("epsilon", 1e-5))
    return op.Mul(g, op.Div(op.Unsqueeze(scale, axes), sigma))


def lp_normalization(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """g / ‖x‖, and 0 where x is 0."""
    x = node.inputs[0]
    reduce = op.ReduceL1 if attribute(node, "p", 2) == 1 else op.ReduceL2
    norm = reduce(x, [axis_from_end(node, -1, x)], keepdims=1)
    return op.Where(op.Equal(norm, 0.0), 0.0, op.Div(g, norm))


def l2_normalization(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """g / max(‖x‖, ε)."""
    x, axes = node.inputs[0], node.attributes.get_ints("axes")
    norm = op.ReduceL2(x, list(axes), keepdims=1)
    return op.Div(g, op.Max(norm, node.attributes.get_float("epsilon")))


def lrn(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """g · d^−β with d = k + α/n · Σ_window x² over channels."""
    _, beta, _ = lrn_window(node)
    exponent = constant(op, np.array(-beta), node.inputs[0])
    return op.Mul(g, op.Pow(lrn_scale(op, node), exponent))


@with_parameters
def global_response_normalization(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """g · (1 + γ n), n = ‖x‖ over the spatial axes ÷ its mean over the channels."""
    x, scale, _ = node.inputs
    norm = op.ReduceL2(x, list(node.attributes.get_ints("axes")), keepdims=1)
    mean = op.ReduceMean(norm, [axis_from_end(node, -1, x)], keepdims=1)
    n = op.Div(norm, op.Add(mean, node.attributes.get_float("epsilon")))
    return op.Mul(g, op.Add(op.Mul(scale, n), 1.0))


# ----- what is computed to multiply something else -----


def held_constant(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """Nothing flows into a gate or into attention's weights."""
    return [None]


def product(op: OpBuilder, node: Node, g: ir.Value, attention: Temperature) -> Cotangents:
    """The gradient, attention's weights being softmax(A / T)."""
    inputs = [softened(op, x, attention) if attention != 1 else x for x in node.inputs]
    soft = node if inputs == list(node.inputs) else layer_on(op, node, inputs)
    return VJPS[node.op_type](op, soft, g)


def softened(op: OpBuilder, value: Any, T: Temperature) -> Any:
    """Attention's weights, or what is linear in them, at the temperature T; all else as it is."""
    if not is_weight(value):
        return value
    node: Node = value.producer()
    if operator_name(node) == "onnxplain::AttentionWeights":
        scores = scaled(op, node.inputs[0], T)
        scores.shape, scores.type = value.shape, value.type
        soft = op.Softmax(scores, axis=attribute(node, "axis", -1))
        soft.shape, soft.type = value.shape, value.type
        return soft
    inputs = [softened(op, x, T) for x in node.inputs]
    if row_of(operator_name(node)).kind is Kind.WEIGHTS or inputs == list(node.inputs):
        return value
    return layer_on(op, node, inputs).outputs[node.outputs.index(value)]


SEMANTIC: Rules = {
    Kind.RECTIFIER: rectifier,
    "Clip": clip,
    "ThresholdedRelu": thresholded_relu,
    "Selu": selu,
    "LeakyRelu": leaky_relu,
    "PRelu": prelu,
    "Gelu": gelu,
    "onnxplain::Swish": swish,
    "HardSwish": hard_swish,
    "Mish": mish,
    "MaxPool": max_pool,
    "LayerNormalization": layer_normalization,
    "onnxplain::RMSNormalization": layer_normalization,
    "InstanceNormalization": instance_normalization,
    "LpNormalization": lp_normalization,
    "onnxplain::L2Normalization": l2_normalization,
    "LRN": lrn,
    "onnxplain::GlobalResponseNormalization": global_response_normalization,
    Kind.WEIGHTS: held_constant,
    Kind.MATRIX_PRODUCT: product,
    "Mul": product,
}

register_method(
    Method(
        "semantic",
        SEMANTIC,
        (
            Parameter(TEMPERATURE, 1.0, "a factor on the temperatures of the rules"),
            Parameter("relu", 0.6, "the temperature of ReLU and other rectifiers", relative=True),
            Parameter("gelu", 1.0, "the temperature of GELU", relative=True),
            Parameter("silu", 1.6, "the temperature of SiLU and its like", relative=True),
            Parameter("max_pool", 0.3, "the temperature of MaxPool", relative=True),
            Parameter("attention", 1.0, "the temperature of attention's weights"),
        ),
        ascent=AscentDefaults(steps=10, eps=None),
        help="what the class looks like to any network: transformers, smooth activations, norms",
        source="Satkiewicz 2026, arXiv 2507.22832 v6",
        aliases=("semantic-pullback",),
    )
)
