"""Normalisations spelled out with reductions, found from the square root that they take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxplain.export.canonical.patterns.spelling import (
    Attributes,
    axes_of,
    constant_operand,
    initializer,
    insert,
    made_by,
    other_operand,
    replace,
    self_contained,
    single_user,
)
from onnxplain.export.tensors import array_of, number_of, rank


@dataclass(frozen=True)
class Moment:
    """The mean of x² or, if `centred`, of (x − mean x)² over `axes` (negative, sorted)."""

    x: ir.Value
    axes: tuple[int, ...]
    centred: bool


def mean_of(value: ir.Value | None) -> tuple[ir.Value, tuple[int, ...]] | None:
    """x and the axes, where `value` is the mean of x over them, kept."""
    node = made_by(value, "ReduceMean", "Mul", "Div")
    if node is None:
        return None
    if node.op_type == "ReduceMean":
        axes, x = axes_of(node), node.inputs[0]
        return None if axes is None or x is None else (x, axes)
    total, share = made_by(node.inputs[0], "ReduceSum"), number_of(node.inputs[1])
    axes = None if total is None or not share else axes_of(total)
    if total is None or not share or axes is None or (x := total.inputs[0]) is None:
        return None
    sizes = [list(x.shape)[axis] if x.shape else None for axis in axes]
    count = np.prod([size if isinstance(size, int) else np.nan for size in sizes])
    is_mean = np.isclose(share if node.op_type == "Div" else 1 / share, count, rtol=1e-6)
    return (x, axes) if is_mean else None


def square_of(value: ir.Value | None) -> ir.Value | None:
    """x, where `value` is x · x or x²."""
    node = made_by(value, "Mul", "Pow")
    if node is None:
        return None
    x, other = node.inputs
    squares = x is other if node.op_type == "Mul" else number_of(other) == 2
    return x if squares else None


def centred(value: ir.Value | None, axes: tuple[int, ...]) -> ir.Value | None:
    """x, where `value` is x − mean x over `axes`."""
    node = made_by(value, "Sub")
    if node is None or node.inputs[0] is None:
        return None
    return node.inputs[0] if mean_of(node.inputs[1]) == (node.inputs[0], axes) else None


def moment_of(value: ir.Value | None) -> Moment | None:
    """What `value` is the second moment of: mean(x²), mean((x − μ)²) or mean(x²) − μ²."""
    found = mean_of(value)
    if found is not None and (root := square_of(found[0])) is not None:
        x = centred(root, found[1])
        return Moment(root if x is None else x, found[1], centred=x is not None)
    node = made_by(value, "Sub", "Max", "Relu")
    if node is not None and node.op_type != "Sub":  # a variance may come out below zero
        positive = node.op_type == "Relu" or number_of(node.inputs[1]) == 0
        found_below = moment_of(node.inputs[0]) if positive else None
        return found_below if found_below is not None and found_below.centred else None
    if node is not None:
        squares, mean = moment_of(node.inputs[0]), mean_of(square_of(node.inputs[1]))
        if squares is not None and mean == (squares.x, squares.axes) and not squares.centred:
            return Moment(squares.x, squares.axes, centred=True)
    return None


def recognise_normalisations(graph: ir.Graph) -> None:
    """LayerNorm and RMSNorm over any axes, with their affine part.

    Over axes other than the trailing ones (LayerNorm2d of NCHW) it becomes a normalisation of the
    trailing ones between two transpositions: on a CPU, ONNX Runtime takes half as long for a fused
    operator and two copies as for the passes that were spelled out.
    """
    for node in list(graph):
        power = number_of(node.inputs[1]) if node.op_type == "Pow" else 0.5
        if node.op_type not in ("Sqrt", "Pow") or power not in (0.5, -0.5):
            continue
        shifted = constant_operand(made_by(node.inputs[0], "Add"), "Add")
        moment = moment_of(shifted[0]) if shifted is not None else None
        if shifted is None or moment is None or shifted[1].size != 1 or _sizes(moment) is None:
            continue
        form = _divided(moment, node.outputs[0], power)
        if form is not None and self_contained(form.result, moment.x):
            _put(graph, moment, float(shifted[1].item()), form)


@dataclass(frozen=True)
class Form:
    """A value that is scale · (x − mean x) / √(moment + ε) + bias; without the mean, an RMSNorm."""

    result: ir.Value
    scale: np.ndarray | None = None
    bias: np.ndarray | None = None


def _divided(moment: Moment, root: ir.Value, power: float) -> Form | None:
    """Follow `root`, which is (moment + ε) to the power ±½, to the end of the affine part."""
    scale = None
    while (node := single_user(root)) is not None:
        if _inverts(node, root):
            power = -power
        elif power < 0 and scale is None and (scaled := constant_operand(node, "Mul")) is not None:
            scale = scaled[1]
        else:
            break
        root = node.outputs[0]
    if node is None:
        return _shifted_by_mean(moment, root, scale) if power < 0 else None
    if power < 0 and node.op_type == "Mul":
        numerator = other_operand(node, root)
    elif power > 0 and node.op_type == "Div" and node.inputs[1] is root:
        numerator = node.inputs[0]
    else:
        return None
    if not _is_deviation(numerator, moment):
        scaled = constant_operand(made_by(numerator, "Mul"), "Mul")
        if scale is not None or scaled is None or not _is_deviation(scaled[0], moment):
            return None
        scale = scaled[1]
    return _affine(moment, node.outputs[0], scale)


def _is_deviation(value: ir.Value | None, moment: Moment) -> bool:
    """Whether `value` is what the moment is a mean square of."""
    return (centred(value, moment.axes) if moment.centred else value) is moment.x


def _inverts(node: ir.Node, x: ir.Value) -> bool:
    if node.op_type == "Div":
        return number_of(node.inputs[0]) == 1 and node.inputs[1] is x
    return node.op_type == "Reciprocal"


def _affine(moment: Moment, result: ir.Value, scale: np.ndarray | None) -> Form | None:
    """The scale and shift that follow, as far as they lie along the normalised axes."""
    if scale is not None and (scale := _along(moment, scale)) is None:
        return None
    following = single_user(result)
    if scale is None and (scaled := constant_operand(following, "Mul")) is not None:
        scale = _along(moment, scaled[1])
        if scale is not None and following is not None:
            result = following.outputs[0]
            following = single_user(result)
    shifted = constant_operand(following, "Add") if moment.centred else None
    bias = _along(moment, shifted[1]) if shifted is not None else None
    if bias is not None and following is not None:
        result = following.outputs[0]
    return Form(result, scale, bias)


def _shifted_by_mean(moment: Moment, slope: ir.Value, scale: np.ndarray | None) -> Form | None:
    """x · s + (β − mean · s), as TensorFlow writes it."""
    users = [use.node for use in slope.uses()]
    if not moment.centred or [node.op_type for node in users] != ["Mul", "Mul"]:
        return None
    for scaled, shift in (users, users[::-1]):
        difference = single_user(shift.outputs[0])
        if (
            other_operand(scaled, slope) is not moment.x
            or mean_of(other_operand(shift, slope)) != (moment.x, moment.axes)
            or difference is None
            or difference.op_type != "Sub"
        ):
            continue
        constant, end = array_of(difference.inputs[0]), single_user(difference.outputs[0])
        if constant is None or end is None or end.op_type != "Add":
            continue
        bias = _along(moment, constant)
        fits = scale is None or _along(moment, scale) is not None
        if bias is not None and fits and scaled.outputs[0] in end.inputs:
            return Form(end.outputs[0], None if scale is None else _along(moment, scale), bias)
    return None


def _sizes(moment: Moment) -> list[int] | None:
    """The sizes of x along the normalised axes, where all are known."""
    shape = list(moment.x.shape) if moment.x.shape is not None else []
    sizes = [shape[axis] for axis in moment.axes if shape]
    known = [size for size in sizes if isinstance(size, int)]
    return known if known and len(known) == len(sizes) else None


def _along(moment: Moment, constant: np.ndarray) -> np.ndarray | None:
    """A constant that varies along the normalised axes alone, in their shape."""
    sizes, extra = _sizes(moment), rank(moment.x) - constant.ndim
    if sizes is None or extra < 0:
        return None
    shape = dict(zip(range(-rank(moment.x), 0), (1,) * extra + constant.shape, strict=True))
    own = [shape.pop(axis) for axis in moment.axes]
    if any(size != 1 for size in shape.values()) or any(
        a not in (1, b) for a, b in zip(own, sizes, strict=True)
    ):
        return None
    return np.broadcast_to(constant.reshape(own), sizes)


def _put(graph: ir.Graph, moment: Moment, epsilon: float, form: Form) -> None:
    x, n, axes = moment.x, rank(moment.x), list(moment.axes)
    sizes = _sizes(moment)
    assert sizes is not None
    scale = np.ones(sizes) if form.scale is None else form.scale
    operator = "LayerNormalization" if moment.centred else "onnxplain::RMSNormalization"
    inputs = [initializer(graph, scale, x, "scale")]
    if form.bias is not None:
        inputs.append(initializer(graph, form.bias, x, "bias"))
    attributes = {"axis": -len(axes), "epsilon": epsilon}
    if axes == list(range(-len(axes), 0)):
        replace(form.result, operator, [x, *inputs], attributes)
        return
    last = [i for i in range(n) if i - n not in axes] + [axis + n for axis in axes]
    back = [last.index(i) for i in range(n)]
    assert x.shape is not None
    shape = ir.Shape([x.shape[i] for i in last])
    transposed = insert(form.result, "Transpose", [x], {"perm": last}, shape)
    normal = insert(form.result, operator, [transposed, *inputs], attributes, shape)
    replace(form.result, "Transpose", [normal], {"perm": back})


def recognise_l2_normalisations(graph: ir.Graph) -> None:
    """`F.normalize`: x / max(‖x‖₂, ε)."""
    for node in list(graph):
        if node.op_type != "Div" or node.domain != "" or node.inputs[1] is None:
            continue
        expanded = made_by(node.inputs[1], "Expand")
        floor = made_by(node.inputs[1] if expanded is None else expanded.inputs[0], "Clip", "Max")
        if floor is None or len(floor.inputs) != 2:
            continue
        norm, epsilon = norm_of(floor.inputs[0]), number_of(floor.inputs[1])
        if norm is None or epsilon is None or norm[0] is not node.inputs[0]:
            continue
        x, axes = norm
        attributes: Attributes = {"axes": axes, "epsilon": epsilon}
        replace(node.outputs[0], "onnxplain::L2Normalization", [x], attributes)


def recognise_response_normalisations(graph: ir.Graph) -> None:
    """ConvNeXt V2's: x + γ · x · ‖x‖ / (mean ‖x‖ + ε) + β."""
    for node in list(graph):
        found = _ratio(node)
        product = single_user(node.outputs[0]) if found is not None else None
        if found is None or product is None or product.op_type != "Mul":
            continue
        x, axes, channel, epsilon = found
        scaled, scale = product.outputs[0], np.ones(1)
        while (times := constant_operand(user := single_user(scaled), "Mul")) and user is not None:
            scaled, scale = user.outputs[0], scale * times[1]  # `addcmul` has a factor of its own
        shifted = single_user(scaled)
        end = single_user(shifted.outputs[0]) if shifted is not None else None
        bias = constant_operand(shifted, "Add")
        if shifted is None or end is None or bias is None or end.op_type != "Add":
            continue
        adds_x = other_operand(end, shifted.outputs[0]) is x
        if adds_x and other_operand(product, node.outputs[0]) is x:
            result = end.outputs[0]
            if self_contained(result, x):
                affine = [
                    initializer(graph, scale, x, "scale"),
                    initializer(graph, bias[1], x, "bias"),
                ]
                attributes: Attributes = {"axis": channel, "axes": axes, "epsilon": epsilon}
                operator = "onnxplain::GlobalResponseNormalization"
                replace(result, operator, [x, *affine], attributes)


def _ratio(node: ir.Node) -> tuple[ir.Value, tuple[int, ...], int, float] | None:
    """x, the axes of its norm, the channels' axis and ε, where `node` is ‖x‖ / (mean ‖x‖ + ε)."""
    if node.op_type != "Div" or node.domain != "":
        return None
    found = norm_of(node.inputs[0])
    shifted = constant_operand(made_by(node.inputs[1], "Add"), "Add")
    mean = mean_of(shifted[0]) if shifted is not None else None
    if found is None or shifted is None or mean is None or shifted[1].size != 1:
        return None
    of, channel = mean
    if of is not node.inputs[0] or len(channel) != 1:
        return None
    return *found, channel[0], float(shifted[1].item())


def norm_of(value: ir.Value | None) -> tuple[ir.Value, tuple[int, ...]] | None:
    """x and the axes, where `value` is the L2 norm of x over them, kept."""
    root = made_by(value, "Sqrt")
    node = made_by(value if root is None else root.inputs[0], "ReduceL2", "ReduceSum")
    if node is None or (root is None) != (node.op_type == "ReduceL2"):
        return None
    x, axes = node.inputs[0] if root is None else square_of(node.inputs[0]), axes_of(node)
    return None if x is None or axes is None else (x, axes)
