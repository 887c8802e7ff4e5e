"""The composites that ONNX has no operator for, as functions in the domain `onnxplain`.

The canonical forward calls them by name, so that a method can give them a rule; `spell_out` spells
them out again, so that the written file holds standard operators alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import OpBuilder, build_function

from onnxplain.errors import SourceError

DOMAIN = "onnxplain"


def swish(op: OpBuilder, x: ir.Value, *, alpha: float) -> ir.Value:
    """x · σ(alpha · x): SiLU with alpha = 1, QuickGELU with 1.702."""
    return op.Mul(x, op.Sigmoid(x if alpha == 1 else op.Mul(x, alpha)))


def rms_normalization(
    op: OpBuilder, x: ir.Value, scale: ir.Value, *, axis: int, epsilon: float
) -> ir.Value:
    """x / √(mean(x²) + ε) · scale, the mean over the axes from `axis` (negative) to the last."""
    return op.Mul(op.Mul(x, inverse_rms(op, x, axis, epsilon)), scale)


def inverse_rms(op: OpBuilder, x: ir.Value, axis: int, epsilon: float) -> ir.Value:
    """1 / √(mean(x²) + ε) over the axes from `axis` (negative) to the last, which are kept."""
    square = op.ReduceMean(op.Mul(x, x), list(range(axis, 0)), keepdims=1)
    return op.Reciprocal(op.Sqrt(op.Add(square, epsilon)))


def l2_normalization(op: OpBuilder, x: ir.Value, *, axes: list[int], epsilon: float) -> ir.Value:
    """x / max(‖x‖₂, ε), the norm over `axes` (negative)."""
    return op.Div(x, op.Max(op.ReduceL2(x, axes, keepdims=1), epsilon))


def global_response_normalization(
    op: OpBuilder,
    x: ir.Value,
    scale: ir.Value,
    bias: ir.Value,
    *,
    axis: int,
    axes: list[int],
    epsilon: float,
) -> ir.Value:
    """x + scale · x · u + bias: u, a channel's norm over that of the mean channel (ConvNeXt V2).

    u = ‖x‖ / (mean ‖x‖ + ε), the norm over the spatial `axes`, the mean over the channels, `axis`
    (all negative). Spelled x · (1 + scale · u) + bias, which passes over x fewer times.
    """
    norm = op.ReduceL2(x, axes, keepdims=1)
    u = op.Div(norm, op.Add(op.ReduceMean(norm, [axis], keepdims=1), epsilon))
    return op.Add(op.Mul(x, op.Add(op.Mul(scale, u), 1.0)), bias)


def attention_weights(op: OpBuilder, x: ir.Value, *, axis: int) -> ir.Value:
    """A Softmax whose result only ever multiplies values that depend on the image."""
    return op.Softmax(x, axis=axis)


def sigmoid_gate(op: OpBuilder, x: ir.Value) -> ir.Value:
    """A Sigmoid whose result only ever multiplies values that depend on the image."""
    return op.Sigmoid(x)


def hard_sigmoid_gate(op: OpBuilder, x: ir.Value, *, alpha: float, beta: float) -> ir.Value:
    """A HardSigmoid whose result only ever multiplies values that depend on the image."""
    return op.HardSigmoid(x, alpha=alpha, beta=beta)


def dynamic_steps(op: OpBuilder, x: ir.Value) -> ir.Value:
    """x in units of `dynamic_scale`, rounded to 256 whole numbers, of which 0 is one.

    ONNX's DynamicQuantizeLinear, less its zero point, which no GPU's runtime takes.
    """
    scale, low = dynamic_scale(op, x), op.Min(op.ReduceMin(x, keepdims=0), 0.0)
    zero = op.Round(op.Clip(op.Neg(op.Div(low, scale)), 0.0, 255.0))
    return op.Sub(op.Clip(op.Add(op.Round(op.Div(x, scale)), zero), 0.0, 255.0), zero)


def dynamic_scale(op: OpBuilder, x: ir.Value) -> ir.Value:
    """1/255 of the distance from the least number of x to the greatest, with 0 among them.

    1 where all of x is 0. No cotangent flows through it.
    """
    low = op.Min(op.ReduceMin(x, keepdims=0), 0.0)
    high = op.Max(op.ReduceMax(x, keepdims=0), 0.0)
    scale = op.Div(op.Sub(high, low), 255.0)
    return op.Where(op.Equal(scale, 0.0), 1.0, scale)


def stop_gradient(op: OpBuilder, x: ir.Value) -> ir.Value:
    """x, through which no cotangent flows."""
    return op.Identity(x)


COMPOSITES: dict[str, Callable[..., ir.Value]] = {
    "Swish": swish,
    "RMSNormalization": rms_normalization,
    "L2Normalization": l2_normalization,
    "GlobalResponseNormalization": global_response_normalization,
    "AttentionWeights": attention_weights,
    "SigmoidGate": sigmoid_gate,
    "HardSigmoidGate": hard_sigmoid_gate,
    "DynamicSteps": dynamic_steps,
    "DynamicScale": dynamic_scale,
    "StopGradient": stop_gradient,
}


_NUMBERS = ("DynamicScale",)
"""Those whose result is a number."""


def without_gradient(op: OpBuilder, x: ir.Value) -> ir.Value:
    """A call of `stop_gradient`."""
    y = op.builder.call_op("StopGradient", [x], {}, domain=DOMAIN, version=1)
    assert isinstance(y, ir.Value)
    y.shape, y.type = x.shape, x.type
    return y


def define(model: ir.Model) -> None:
    """Give every call of a composite its function, in place.

    Each set of attributes and dtypes has its own overload, whose body holds them as plain
    constants: what is inlined is then what one would have written by hand. The result of a call
    has the dtype of its first input, and its shape unless it is a number.

    Raises:
        SourceError: a call in the domain `onnxplain` that names no composite.
    """
    for node in model.graph.all_nodes():
        if node.domain != DOMAIN:
            continue
        x, y = node.inputs[0], node.outputs[0]
        if x is not None and (y.shape is None or y.dtype is None):
            y.shape = ir.Shape([]) if node.op_type in _NUMBERS else x.shape
            y.type = x.type
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        dtypes = [value.dtype for value in node.inputs if value is not None]
        settings = [f"{name}={value}" for name, value in sorted(attributes.items())]
        node.overload = " ".join([*settings, *(dtype.name for dtype in dtypes if dtype)])
        if node.op_identifier() not in model.functions:
            function = _function(model, node, attributes)
            model.functions[function.identifier()] = function
            model.opset_imports[DOMAIN] = 1


def _function(model: ir.Model, node: ir.Node, attributes: dict[str, Any]) -> ir.Function:
    body = COMPOSITES.get(node.op_type)
    if body is None:
        raise SourceError(
            f"node {node.name!r} calls {DOMAIN}::{node.op_type}, which is no composite; there are: "
            f"{', '.join(COMPOSITES)}"
        )
    function = build_function(
        lambda op, *inputs: body(op, *inputs, **attributes),
        [ir.val(f"x{i}", x.dtype, None) for i, x in enumerate(node.inputs) if x is not None],
        domain=DOMAIN,
        name=node.op_type,
        attributes={name: ir.Attr(name, a.type, None) for name, a in node.attributes.items()},
        opset_imports={"": model.opset_imports[""]},
    )
    function.overload = node.overload
    return function


def spell_out(model: ir.Model) -> None:
    """Spell the composites out, in place: standard operators on initializers, no functions."""
    define(model)
    common.InlinePass(lambda function: function.domain == DOMAIN)(model)
    for identifier in [key for key in model.functions if key[0] == DOMAIN]:
        del model.functions[identifier]
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
