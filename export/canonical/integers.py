"""Integer arithmetic, spelled in floats between quantisers: QDQ format, which can be explained.

Two kinds of files compute with integers: quantised dynamically (DynamicQuantizeLinear,
MatMulInteger, ConvInteger), and in QOperator format (QLinearConv and its like, many of them ONNX
Runtime's own). Each operator here becomes its namesake of floats on the numbers that its integers
stand for, and rounds where it rounded: the forward result stays. What is stored as integers stays
so. What is quantised dynamically becomes whole numbers in floats, whose sums of products are exact
up to 2²⁴, and are rounded alike.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxplain.errors import NoRuleError
from onnxplain.export.canonical.emit import Emitted, Emitter, Operand, called, integers, replace
from onnxplain.export.canonical.patterns.spelling import made_by
from onnxplain.export.canonical.spelled.recurrent import ROUNDED, dynamic_steps
from onnxplain.export.operators import Kind, row_of
from onnxplain.export.tensors import array_of, attribute, number_of, rank

_FLOAT = ir.TensorType(ir.DataType.FLOAT)
_DOMAINS = ("", "com.microsoft")


def spell_integers(model: ir.Model, aside: Container[ir.Node] = ()) -> None:
    """Spell the operators that compute with integers in floats between quantisers, in place.

    Args:
        aside: nodes that no cotangent is to pass: one that has no form here stays.

    Raises:
        NoRuleError: another that has none.
    """
    for node in list(model.graph.all_nodes()):
        name = node.op_type
        form = FORMS.get(name) if node.domain in _DOMAINS else None
        if name in NUMBERS_OF and _quantiser(node.inputs[0]) is not None:
            form = _of_integers
        if name in _NUMBERS and any(y.is_graph_output() for y in node.outputs):
            continue
        if name == "Add" and node.outputs[0].dtype == ir.DataType.INT32:
            form = _sum if any(map(_is_float, node.inputs)) else None
        if name == "DequantizeLinear" and _is_float(node.inputs[0]):
            form = _scaled_steps
        unknown = form is None and (name.startswith(_PREFIXES) or name.endswith("Integer"))
        if unknown or (form is not None and attribute(node, "channels_last", 0)):
            if node not in aside:
                raise NoRuleError(_no_form(node))
        elif form is not None:
            if name in (*_NUMBERS, "Add"):
                node.outputs[0].type = _FLOAT
            replace(node, form)
        elif row_of(name).kind is Kind.MOVE and name not in _CONVERTING and node.inputs:
            for y in node.outputs if _is_float(node.inputs[0]) else ():
                if y.dtype != ir.DataType.INT64:  # where the elements were found
                    y.type = _FLOAT


_NUMBERS = ("DynamicQuantizeLinear", "MatMulInteger", "ConvInteger")
"""Those whose result, an integer, becomes a float."""

_CONVERTING = ("Cast", "CastLike", "DequantizeLinear", "QuantizeLinear")
"""Those whose result has a type of its own."""

_PREFIXES = ("QLinear", "DynamicQuantize", "QGemm", "QAttention", "QEmbed")


def _no_form(node: ir.Node) -> str:
    layout = " with channels_last" if attribute(node, "channels_last", 0) else ""
    return (
        f"operator {node.op_type}{layout} (node {node.name!r}) computes with integers, and has no "
        "rule for the cotangent; quantise the network in QDQ format instead: "
        "onnxruntime.quantization.quantize_static(…, quant_format=QuantFormat.QDQ)"
    )


# ----- numbers and the integers that stand for them -----


def _floats(
    emit: Emitter, x: Operand, scale: Operand, zero: Operand = None, *, axis: int = 1
) -> ir.Value:
    """(x − zero) · scale; x itself where it is the float of a dynamic quantiser."""
    if isinstance(x, ir.Value) and _is_float(x):
        return x
    scale, zero = _alike(_scalar(scale), _scalar(zero))
    y = emit("DequantizeLinear", x, scale, zero, axis=axis)
    y.type = _FLOAT
    return y


def _is_float(x: ir.Value | None) -> bool:
    return x is not None and x.dtype == ir.DataType.FLOAT


def _rounded(emit: Emitter, y: ir.Value, scale: Operand, zero: Operand) -> ir.Value:
    return emit("QuantizeLinear", y, *_alike(_scalar(scale), _scalar(zero)))


def _scalar(parameter: Operand) -> Operand:
    """A scale or zero point of one element, as the scalar that it means."""
    array = parameter if isinstance(parameter, np.ndarray) else array_of(parameter)
    return array.reshape(()) if array is not None and array.size == 1 else parameter


def _alike(scale: Operand, zero: Operand) -> tuple[Operand, Operand]:
    """Both of one shape, where one is a number and the other a vector of constants."""
    pair = [p if isinstance(p, np.ndarray | None) else array_of(p) for p in (scale, zero)]
    if pair[0] is None or pair[1] is None or pair[0].shape == pair[1].shape:
        return scale, zero
    a, b = np.broadcast_arrays(pair[0], pair[1])
    return np.ascontiguousarray(a), np.ascontiguousarray(b)


def _origin(x: ir.Value | None) -> ir.Value | None:
    """What holds the elements of x, which may have been moved since."""
    node = None if x is None else x.producer()
    while node is not None and row_of(node.op_type).kind is Kind.MOVE and node.domain == "":
        if node.op_type in _CONVERTING:
            break
        x = node.inputs[0]
        node = None if x is None else x.producer()
    return x


def _quantiser(x: ir.Value | None) -> ir.Node | None:
    """The QuantizeLinear whose integers these are."""
    origin = _origin(x)
    return None if origin is None else made_by(origin, "QuantizeLinear")


def _numbers(emit: Emitter, x: ir.Value | None, zero: ir.Value | None, axis: int) -> ir.Value:
    """x − zero, in floats. Of a quantiser's result: what it stands for, over the scale."""
    quantiser = _quantiser(x)
    if quantiser is not None:
        scale = quantiser.inputs[1]
        return emit("Div", _floats(emit, x, scale, zero, axis=axis), scale)
    if not _is_float(x) and array_of(_origin(x)) is None:
        raise NoRuleError(f"no scale is known of the integers {x.name if x else ''!r}")
    return _floats(emit, x, np.array(1, np.float32), zero, axis=axis)


def _attributes(node: ir.Node) -> dict[str, Any]:
    dropped = ("channels_last", "opset")  # ONNX Runtime's own
    return {name: a.value for name, a in node.attributes.items() if name not in dropped}


# ----- dynamic quantisation -----


def _dynamic_quantiser(emit: Emitter, node: ir.Node) -> Emitted:
    """The integer less its zero point, as a float; the scale; and 0, the zero point of that."""
    steps, scale = dynamic_steps(emit, node.inputs[0])
    return [steps, scale, emit.constant(np.array(0, np.uint8))]


def _scaled_steps(emit: Emitter, node: ir.Node) -> Emitted:
    """What a dynamic quantiser gave, as floats again."""
    steps, scale, zero = [*node.inputs, None][:3]
    if zero is not None and number_of(zero) != 0:
        raise NoRuleError(f"{called(node)} takes another zero point than its dynamic quantiser's")
    return emit("Mul", steps, scale)


def _sum(emit: Emitter, node: ir.Node) -> Emitted:
    """An integer added to one that has become a float."""
    float32 = int(ir.DataType.FLOAT)
    xs = [x if _is_float(x) else emit("Cast", x, to=float32) for x in node.inputs]
    return emit("Add", *xs)


def _matmul_integer(emit: Emitter, node: ir.Node) -> Emitted:
    a, b, a_zero, b_zero = [*node.inputs, None, None][:4]
    y = emit("MatMul", _numbers(emit, a, a_zero, -2), _numbers(emit, b, b_zero, -1))
    y.type = _FLOAT
    return y


def _conv_integer(emit: Emitter, node: ir.Node) -> Emitted:
    x, w, x_zero, w_zero = [*node.inputs, None, None][:4]
    operands = _numbers(emit, x, x_zero, 1), _numbers(emit, w, w_zero, 0)
    y = emit("Conv", *operands, **_attributes(node))
    y.type = _FLOAT
    return y


def _dynamic_matmul(emit: Emitter, node: ir.Node) -> Emitted:
    a, b, scale, zero, bias = [*node.inputs, None, None][:5]
    steps, a_scale = dynamic_steps(emit, a)
    return _scaled_matmul(emit, steps, b, (a_scale, scale), (None, zero), bias)


def _matmul_to_float(emit: Emitter, node: ir.Node) -> Emitted:
    a, b, a_scale, b_scale, a_zero, b_zero, bias = [*node.inputs, None, None, None][:7]
    return _scaled_matmul(emit, a, b, (a_scale, b_scale), (a_zero, b_zero), bias)


def _scaled_matmul(
    emit: Emitter,
    a: ir.Value | None,
    b: ir.Value | None,
    scales: tuple[ir.Value | None, ir.Value | None],
    zeros: tuple[ir.Value | None, ir.Value | None],
    bias: ir.Value | None,
) -> ir.Value:
    y = emit("MatMul", _numbers(emit, a, zeros[0], -2), _numbers(emit, b, zeros[1], -1))
    y = emit("Mul", y, emit("Mul", *scales))
    return y if bias is None else emit("Add", y, bias)


def _dynamic_lstm(emit: Emitter, node: ir.Node) -> Emitted:
    """An LSTM that rounds its inputs and, step by step, its states; see `spelled.recurrent`."""
    x, w, r, *others = [*node.inputs, *[None] * 12][:12]
    weights = [_of_directions(emit, w, *others[5:7]), _of_directions(emit, r, *others[7:9])]
    ys = emit.many("LSTM", len(node.outputs), x, *weights, *others[:5], **_attributes(node))
    layer = ys[0].producer()
    assert layer is not None
    layer.metadata_props[ROUNDED] = ""
    return ys


def _of_directions(
    emit: Emitter, w: ir.Value | None, scale: ir.Value | None, zero: ir.Value | None
) -> ir.Value:
    """Weights [directions, inputs, columns], as an LSTM has them: [directions, columns, inputs].

    The scale is one of each direction, or [directions, columns].
    """
    if scale is not None and rank(scale) > 1:
        numbers = emit("Cast", w, to=int(ir.DataType.FLOAT))
        if zero is not None:
            zero = emit("Unsqueeze", emit("Cast", zero, to=int(ir.DataType.FLOAT)), integers(1))
            numbers = emit("Sub", numbers, zero)
        floats = emit("Mul", numbers, emit("Unsqueeze", scale, integers(1)))
    else:
        floats = _floats(emit, w, scale, zero, axis=0)
    return emit("Transpose", floats, perm=[0, 2, 1])


# ----- QOperator format -----


def _of_floats(op_type: str, operands: int = 1) -> Callable[[Emitter, ir.Node], Emitted]:
    """`op_type` of so many quantised operands (x, scale, zero point), then the result's scale and
    zero point."""

    def form(emit: Emitter, node: ir.Node) -> Emitted:
        *triples, scale, zero = [*node.inputs, None][: 3 * operands + 2]
        xs = [_floats(emit, *triples[3 * i : 3 * i + 3]) for i in range(operands)]
        return _rounded(emit, emit(op_type, *xs, **_attributes(node)), scale, zero)

    return form


def _qlinear_conv(emit: Emitter, node: ir.Node) -> Emitted:
    """Its bias is in units of the operands' scales."""
    x, x_scale, x_zero, w, w_scale, w_zero, scale, zero, bias = [*node.inputs, None][:9]
    operands = [_floats(emit, x, x_scale, x_zero), _floats(emit, w, w_scale, w_zero, axis=0)]
    if bias is not None:
        operands.append(_floats(emit, bias, _product(emit, x_scale, w_scale), axis=0))
    return _rounded(emit, emit("Conv", *operands, **_attributes(node)), scale, zero)


def _qlinear_matmul(emit: Emitter, node: ir.Node) -> Emitted:
    a, a_scale, a_zero, b, b_scale, b_zero, scale, zero = node.inputs
    A, B = _floats(emit, a, a_scale, a_zero, axis=-2), _floats(emit, b, b_scale, b_zero, axis=-1)
    return _rounded(emit, emit("MatMul", A, B), scale, zero)


def _qgemm(emit: Emitter, node: ir.Node) -> Emitted:
    """The sum is in units of the operands' scales and alpha; the result a float without a scale."""
    inputs = [*node.inputs, None, None, None][:9]
    a, a_scale, a_zero, b, b_scale, b_zero, c, scale, zero = inputs
    attributes = _attributes(node)
    column = 0 if attributes.get("transB", 0) else 1
    operands = [_floats(emit, a, a_scale, a_zero), _floats(emit, b, b_scale, b_zero, axis=column)]
    if c is not None:
        alpha = np.array(attributes.get("alpha", 1.0), np.float32)
        each = _product(emit, _product(emit, a_scale, b_scale), alpha)
        operands.append(_floats(emit, c, each, axis=rank(c) - 1))
    y = emit("Gemm", *operands, **attributes)
    return y if scale is None else _rounded(emit, y, scale, zero)


def _product(emit: Emitter, a: Operand, b: Operand) -> Operand:
    a, b = _scalar(a), _scalar(b)
    pair = [p if isinstance(p, np.ndarray | None) else array_of(p) for p in (a, b)]
    if pair[0] is not None and pair[1] is not None:
        return np.asarray(pair[0] * pair[1], np.float32)
    return emit("Mul", a, b)


def _qlinear_concat(emit: Emitter, node: ir.Node) -> Emitted:
    scale, zero, *triples = node.inputs
    xs = [_floats(emit, *triples[i : i + 3]) for i in range(0, len(triples), 3)]
    return _rounded(emit, emit("Concat", *xs, **_attributes(node)), scale, zero)


def _qlinear_softmax(emit: Emitter, node: ir.Node) -> Emitted:
    """Of an `opset` before 13, over its axis and all after it."""
    x, x_scale, x_zero, scale, zero = [*node.inputs, None][:5]
    floats, attributes = _floats(emit, x, x_scale, x_zero), _attributes(node)
    if attribute(node, "opset", 13) >= 13:
        return _rounded(emit, emit("Softmax", floats, **attributes), scale, zero)
    rows = emit("Flatten", floats, axis=attribute(node, "axis", 1))
    y = emit("Reshape", emit("Softmax", rows, axis=1), emit("Shape", floats))
    return _rounded(emit, y, scale, zero)


def _qlinear_where(emit: Emitter, node: ir.Node) -> Emitted:
    condition, *triples, scale, zero = [*node.inputs, None][:9]
    xs = [_floats(emit, *triples[i : i + 3]) for i in (0, 3)]
    return _rounded(emit, emit("Where", condition, *xs), scale, zero)


def _of_integers(emit: Emitter, node: ir.Node) -> Emitted:
    """An operator on a quantiser's integers: the same on the numbers that they stand for."""
    name, quantiser = node.op_type, _quantiser(node.inputs[0])
    assert quantiser is not None
    scale, zero = [*quantiser.inputs[1:], None][:2]
    xs = [
        _floats(emit, x, scale, zero) if x is not None and index in NUMBERS_OF[name] else x
        for index, x in enumerate(node.inputs)
    ]
    return _rounded(emit, emit(name, *xs, **_attributes(node)), scale, zero)


FORMS: Mapping[str, Callable[[Emitter, ir.Node], Emitted]] = {
    "DynamicQuantizeLinear": _dynamic_quantiser,
    "DynamicQuantizeLSTM": _dynamic_lstm,
    "DynamicQuantizeMatMul": _dynamic_matmul,
    "MatMulInteger": _matmul_integer,
    "MatMulIntegerToFloat": _matmul_to_float,
    "ConvInteger": _conv_integer,
    "QLinearConv": _qlinear_conv,
    "QLinearMatMul": _qlinear_matmul,
    "QGemm": _qgemm,
    "QLinearAdd": _of_floats("Add", 2),
    "QLinearMul": _of_floats("Mul", 2),
    "QLinearSigmoid": _of_floats("Sigmoid"),
    "QLinearLeakyRelu": _of_floats("LeakyRelu"),
    "QLinearSoftmax": _qlinear_softmax,
    "QLinearAveragePool": _of_floats("AveragePool"),
    "QLinearGlobalAveragePool": _of_floats("GlobalAveragePool"),
    "QLinearConcat": _qlinear_concat,
    "QLinearWhere": _qlinear_where,
}
"""Operator of integers → what emits it in floats."""

NUMBERS_OF: Mapping[str, tuple[int, ...]] = {"MaxPool": (0,), "Pad": (0, 2), "Resize": (0,)}
"""Operator of integers or floats that does more than to move them → its inputs that are such."""
