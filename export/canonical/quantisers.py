"""Quantised networks in QDQ form: what their quantisers hide; and formats that hide too much."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxplain.errors import NoRuleError
from onnxplain.export.autodiff import dependents, depends
from onnxplain.export.canonical.emit import initializer
from onnxplain.export.tensors import attribute

_LOWEST = {
    ir.DataType.UINT8: 0,
    ir.DataType.INT8: -128,
    ir.DataType.UINT16: 0,
    ir.DataType.INT16: -32768,
}


def refuse_integer_arithmetic(model: ir.Model) -> None:
    """
    Raises:
        NoRuleError: the network computes with integers (QOperator format, or dynamic
            quantisation), which leaves no float value between its operators to explain.
    """
    for node in model.graph.all_nodes():
        name = node.op_type
        if name.startswith("QLinear") or name.endswith("Integer") or name in _INTEGER_ARITHMETIC:
            raise NoRuleError(
                f"operator {name} (node {node.name!r}) computes with integers, and has no rule for "
                "the cotangent; quantise the network in QDQ format instead: "
                "onnxruntime.quantization.quantize_static(…, quant_format=QuantFormat.QDQ)"
            )


_INTEGER_ARITHMETIC = ("DynamicQuantizeLinear", "DynamicQuantizeMatMul", "QGemm", "QAttention")


def show_relus(graph: ir.Graph, image: ir.Value) -> None:
    """Put back the `Relu` or ReLU6 whose work a quantiser does; the forward pass stays as it is.

    ONNX Runtime's quantiser removes a ReLU or ReLU6 before a QuantizeLinear whose zero point is
    the lowest value of its type: it saturates there, so negative values become zero all the same,
    to the bit. Methods must see that gate. Where the highest value stands for 6, it was a ReLU6,
    and becomes `Clip(x, 0, 6)` again. Any other saturation at the top is a quantiser's, and is
    passed straight through. Before the first layer there is only the image, perhaps normalised.
    """
    active = dependents(graph, [image])
    layers = [node for node in graph if node.op_type in _LAYERS and depends(node, active)]
    activations = dependents(graph, [node.outputs[0] for node in layers])
    for node in list(graph):
        x = node.inputs[0] if node.inputs else None
        if node.op_type != "QuantizeLinear" or x is None or x not in activations:
            continue
        if not _starts_at_zero(node) or _nonnegative(x):
            continue
        if _ends_at_six(node):
            name = f"{node.outputs[0].name}.relu6"
            low = initializer(graph, f"{name}.low", np.array(0, np.float32))
            high = initializer(graph, f"{name}.high", np.array(6, np.float32))
            gate = ir.node("Clip", [x, low, high], name=f"{node.name}.relu6")
        else:
            gate = ir.node("Relu", [x], name=f"{node.name}.relu")
        gate.outputs[0].type, gate.outputs[0].shape = x.type, x.shape
        graph.insert_before(node, gate)
        node.replace_input_with(0, gate.outputs[0])


def _ends_at_six(node: ir.Node) -> bool:
    """Whether a quantiser from zero up has its highest value for all from 6 on, and little else."""
    assert node.inputs[1] is not None
    scale = ir.convenience.get_const_tensor(node.inputs[1])
    dtype = node.outputs[0].dtype
    if scale is None or dtype not in _LOWEST or scale.size != 1:
        return False
    steps = int(256**dtype.itemsize) - 1
    return abs(6.0 / float(scale.numpy().item()) - steps) < 0.5


def _starts_at_zero(node: ir.Node) -> bool:
    """Whether the least value that a (de)quantiser knows is zero."""
    zero_point = node.inputs[2] if len(node.inputs) > 2 else None
    if zero_point is None and node.op_type == "DequantizeLinear":
        assert node.inputs[0] is not None
        return node.inputs[0].dtype == ir.DataType.UINT8
    if zero_point is None:
        return attribute(node, "output_dtype", ir.DataType.UINT8) == ir.DataType.UINT8
    tensor = ir.convenience.get_const_tensor(zero_point)
    lowest = None if tensor is None else _LOWEST.get(tensor.dtype)
    return tensor is not None and lowest is not None and bool((tensor.numpy() == lowest).all())


def _nonnegative(value: ir.Value) -> bool:
    """Whether a value is known not to be negative."""
    node = value.producer()
    if node is None:
        tensor = ir.convenience.get_const_tensor(value)
        return tensor is not None and bool((tensor.numpy() >= 0).all())
    if node.op_type in _NEVER_NEGATIVE:
        return True
    if node.op_type == "DequantizeLinear":
        return _starts_at_zero(node)
    if node.op_type == "Clip":
        bound = node.inputs[1] if len(node.inputs) > 1 else None
        low = None if bound is None else ir.convenience.get_const_tensor(bound)
        return low is not None and float(np.min(low.numpy())) >= 0
    interpolates = node.op_type == "Resize" and node.attributes.get_string("mode", "") != "cubic"
    if node.op_type in _KEEPS_THE_SIGN or interpolates:
        x = node.inputs[0]
        return x is not None and _nonnegative(x)
    if node.op_type in _OF_ALL_INPUTS:
        return all(x is not None and _nonnegative(x) for x in node.inputs)
    return False


_LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
_NEVER_NEGATIVE = {
    *("Relu", "Sigmoid", "HardSigmoid", "Softmax", "Softplus", "Exp", "Abs", "Sqrt"),
    *("ReduceL1", "ReduceL2", "ReduceSumSquare", "LpPool", "GlobalLpPool"),
}
_LAYOUT = {
    *("Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Gather", "Split"),
    *("Expand", "Tile", "Identity", "Cast", "DepthToSpace", "SpaceToDepth"),
}
_KEEPS_THE_SIGN = {
    *_LAYOUT,
    *("MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool"),
    *("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "LeakyRelu", "Dropout"),
}
_OF_ALL_INPUTS = {"Concat", "Add", "Mul", "Div", "Sum", "Mean", "Max", "Min"}
