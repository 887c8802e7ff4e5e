"""Explain graphs in half precision that stay right.

Weights and activations are stored in float16 or bfloat16; what would overflow or lose its meaning
there is computed in float32, between casts:

- exponentials and powers, with the differences that go into them: of half numbers near 10, x/T is
  known to 0.03 only, and e^x beyond 11 is infinite in float16;
- statistics and sums over many elements (norms, means over positions, softmax), whose terms are
  small beside the sum, and the square roots and quotients of them, whose ε is 0 in float16;
- the steps of an ascent, whose norms sum the squares of a whole image;
- in bfloat16, a convolution and the depthwise one behind it with which a network begins: its
  folded normalisation leaves large weights that cancel (see `runtime.sessions.openvino.stem`);
- also in bfloat16, the operators that TensorRT-RTX (1.7) refuses in it;
- the inputs and outputs, as the contract has them.

An elementwise operation between those stays in float32 with them, so that a value is cast where it
leaves such a part, and nowhere within.
"""

from __future__ import annotations

import itertools
import os

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from onnxplain.contract.explain import PULLBACK, TARGET
from onnxplain.errors import BackendError
from onnxplain.export.canonical.emit import initializer
from onnxplain.export.inline import inline

_BFLOAT16 = ir.DataType.BFLOAT16

PRECISIONS = {"float16": ir.DataType.FLOAT16, "bfloat16": _BFLOAT16}

_SINGLE = frozenset(
    {
        *("Exp", "Log", "Pow", "Sqrt", "Reciprocal", "Softplus", "Softmax", "LogSoftmax"),
        *("ReduceSum", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceSumSquare"),
        *("ReduceLogSum", "ReduceLogSumExp", "ReduceProd", "CumSum"),
        *("LayerNormalization", "InstanceNormalization", "GroupNormalization"),
        *("RMSNormalization", "LpNormalization", "MeanVarianceNormalization", "LRN"),
        *("GlobalAveragePool", "GlobalLpPool", "LpPool", "TopK", "OneHot"),
    }
)
"""Operators that compute in float32."""

_NO_BFLOAT16 = frozenset({"ConvTranspose", "HardSwish", "Mish"})
"""Those that do so in a bfloat16 graph: TensorRT-RTX (1.7) refuses them in bfloat16."""

_ELEMENTWISE = frozenset(
    {
        *("Abs", "Add", "Clip", "Div", "Equal", "Erf", "Greater", "GreaterOrEqual", "Less"),
        *("LessOrEqual", "Max", "Min", "Mul", "Neg", "Relu", "Sigmoid", "Sign", "Sub", "Sum"),
        *("Tanh", "Where", "ReduceMax", "ReduceMin", "MaxPool", "AveragePool", "Resize"),
        *("Concat", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Slice"),
        *("Split", "Squeeze", "Transpose", "Unsqueeze"),
    }
)
"""Those that compute in float32 where all that they read, or all that reads them, does."""

_FLOAT32_INPUTS = {"Resize": {1, 2}, "QuantizeLinear": {1}, "DequantizeLinear": {1}}
"""Inputs that are float32 whatever the operator computes in."""

_SEED = 1024.0
"""What the target's cotangent is multiplied by in float16: a mean over 7 × 7 positions and a few
layers take it towards 6e-8, below which float16 has nothing. The pullback is divided by it again;
every rule is homogeneous in the cotangent."""

_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)

_BFLOAT16_OPSET = 22  # the first whose convolutions and pools take it


def convert(path: str | os.PathLike[str], precision: str) -> bytes:
    """An explain graph of a file, in half precision or with `float_biases`, as a file's bytes.

    Args:
        path: as `onnxplain.export` writes it; weights beside it are taken in.
        precision: "float16" or "bfloat16"; or "int8" of a network quantised already.

    Raises:
        BackendError: an unknown precision, or a graph that cannot be converted.
    """
    model = ir.load(path)
    ir.external_data.load_to_model(model)
    if precision == "int8":
        float_biases(model)
    else:
        to_half(model, precision)
    return ir.to_proto(model).SerializeToString()


def float_biases(model: ir.Model) -> None:
    """Write out biases that are kept as 32-bit integers, x · scale, in place.

    ONNX Runtime's quantiser keeps them so; TensorRT's DequantizeLinear takes no more than 8 bits.
    """
    for node in list(model.graph):
        if node.op_type != "DequantizeLinear":
            continue
        x, scale = (ir.convenience.get_const_tensor(v) if v else None for v in node.inputs[:2])
        if x is None or scale is None or x.dtype != ir.DataType.INT32 or x.numpy().ndim > 1:
            continue
        bias, floats = node.outputs[0], x.numpy() * scale.numpy()
        name = f"{bias.name}_float32"
        constant = initializer(model.graph, name, floats.astype(np.float32))
        bias.replace_all_uses_with(constant)
        model.graph.remove(node, safe=True)
    common.RemoveUnusedNodesPass()(model)


def to_half(model: ir.Model, precision: str) -> None:
    """Convert a float32 explain graph in place; its inputs and outputs stay float32.

    Functions (`--kernels`) are inlined: their bodies too have parts that stay in float32.

    Args:
        model: as `onnxplain.export` writes it.
        precision: "float16" or "bfloat16".

    Raises:
        BackendError: an unknown precision, or a graph with control flow.
    """
    if precision not in PRECISIONS:
        raise BackendError(f"half precision is float16 or bfloat16, not {precision!r}")
    inline(model)
    graph = model.graph
    for node in graph:
        if any(a.type in _GRAPHS for a in node.attributes.values()):
            raise BackendError(
                f"{precision} has no form of {node.op_type} {node.name!r}, which holds a graph of "
                "its own; use float32"
            )
    common.LiftConstantsToInitializersPass(lift_all_constants=True)(model)
    half = PRECISIONS[precision]
    if half == _BFLOAT16:
        version = model.opset_imports.get("", 0)
        model.opset_imports[""] = max(version, _BFLOAT16_OPSET)
    elif any(value.name == PULLBACK for value in graph.outputs):
        _scale_seed(graph)
    _Conversion(graph, half).run()
    graph.sort()
    common.RemoveUnusedNodesPass()(model)


class _Conversion:
    """One graph's: `single` are the nodes that compute in float32, `half` is what the others do."""

    def __init__(self, graph: ir.Graph, half: ir.DataType) -> None:
        self.graph, self.half = graph, half
        self.single = _single_nodes(graph, _without_bfloat16(graph) if half == _BFLOAT16 else set())
        self._casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def run(self) -> None:
        graph, nodes = self.graph, list(self.graph)
        edges = [
            (node, index, x)
            for node in nodes
            for index, x in enumerate(node.inputs)
            if x is not None and _is_float(x) and index not in _FLOAT32_INPUTS.get(node.op_type, ())
        ]
        outputs = [(index, x) for index, x in enumerate(graph.outputs) if _is_float(x)]
        for node in nodes:
            if node not in self.single:
                for value in filter(_is_float, node.outputs):
                    value.type = ir.TensorType(self.half)  # inlined calls share their types
                if node.op_type == "Cast" and _is_half(node.outputs[0]):
                    node.attributes["to"] = ir.AttrInt64("to", self.half)
        for node, index, x in edges:
            wanted = ir.DataType.FLOAT if node in self.single else self.half
            node.replace_input_with(index, self._as(x, wanted))
        for index, x in outputs:
            if x.dtype != ir.DataType.FLOAT:
                name, x.name = x.name, f"{x.name}_{self.half.name.lower()}"
                graph.outputs[index] = self._as(x, ir.DataType.FLOAT)
                graph.outputs[index].name = name

    def _as(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """The value in that precision: itself, a copy of a constant, or a cast, made once."""
        if value.dtype == dtype:
            return value
        key = (value, dtype)
        if key not in self._casts:
            name = f"{value.name}_{dtype.name.lower()}"
            if value.is_initializer():
                self._casts[key] = initializer(self.graph, name, _rounded(value, dtype), dtype)
            else:
                cast = ir.node("Cast", [value], {"to": ir.AttrInt64("to", dtype)})
                cast.outputs[0].name, cast.outputs[0].shape = name, value.shape
                cast.outputs[0].dtype = dtype
                self.graph.append(cast)
                self._casts[key] = cast.outputs[0]
        return self._casts[key]


def _without_bfloat16(graph: ir.Graph) -> set[ir.Node]:
    return _stem(graph) | {node for node in graph if node.op_type in _NO_BFLOAT16}


def _stem(graph: ir.Graph) -> set[ir.Node]:
    """The first two products, if the second is a depthwise convolution."""
    products = (
        node for node in graph if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul")
    )
    first_two = list(itertools.islice(products, 2))
    group = first_two[-1].attributes.get_int("group", 1) if len(first_two) == 2 else 1
    return set(first_two) if group > 1 else set()


def _single_nodes(graph: ir.Graph, others: set[ir.Node]) -> set[ir.Node]:
    """Those of `_SINGLE`, the `others`, and what joins them."""
    nodes = list(graph)
    varying = {value for value in graph.inputs if _is_float(value)}
    for node in nodes:
        if not varying.isdisjoint(node.inputs) or not any(map(_is_float, node.inputs)):
            varying.update(filter(_is_float, node.outputs))
    single = {
        node
        for node in nodes
        if node.op_type in _SINGLE
        or node in others
        or (any(map(_is_float, node.outputs)) and not any(map(_is_float, node.inputs)))
    }

    def produced(x: ir.Value) -> bool:
        return x.is_graph_input() or x.producer() in single

    def arguments(node: ir.Node) -> list[ir.Value]:
        return [x for x in node.inputs if x in varying]

    def joins(node: ir.Node) -> bool:
        """Whether all that it reads is in float32, or all that reads it, if it joins, will be."""
        given = arguments(node)
        if given and node.op_type not in _ELEMENTWISE:
            return False
        if given and all(map(produced, given)):
            return True

        def reads_single(reader: ir.Node) -> bool:
            others = [x for x in arguments(reader) if x.producer() is not node]
            by_others = reader.op_type in _ELEMENTWISE and others and all(map(produced, others))
            return reader in single or bool(by_others)

        readers = [reader for y in node.outputs for reader, _ in y.uses()]
        leaves = any(y.is_graph_output() for y in node.outputs)
        return bool(readers or leaves) and all(map(reads_single, readers))

    grown = True
    while grown:
        grown = False
        for node in nodes:
            if node not in single and any(map(_is_float, node.outputs)) and joins(node):
                single.add(node)
                grown = True
    return single


def _scale_seed(graph: ir.Graph) -> None:
    """Multiply the target's cotangent by `_SEED`, and divide the pullback by it, in float32."""
    reached = {value for value in graph.inputs if value.name == TARGET}
    for node in list(graph):
        if reached.isdisjoint(node.inputs):
            continue
        reached.update(node.outputs)
        if not any(map(_is_float, node.outputs)):
            continue
        _multiplied(graph, node.outputs[0], _SEED)
        break
    for value in list(graph.outputs):
        if value.name == PULLBACK:
            value.name = f"{PULLBACK}_scaled"
            _multiplied(graph, value, 1 / _SEED).name = PULLBACK


def _multiplied(graph: ir.Graph, value: ir.Value, factor: float) -> ir.Value:
    """Put a multiplication between a value and all that reads it."""
    name = f"{value.name}_times"
    number = initializer(graph, f"{name}_factor", np.array(factor, np.float32), ir.DataType.FLOAT)
    node = ir.node("Mul", [value, number])
    (product,) = node.outputs
    product.name, product.shape, product.dtype = name, value.shape, ir.DataType.FLOAT
    value.replace_all_uses_with(product, replace_graph_outputs=True)
    node.replace_input_with(0, value)
    graph.append(node)
    graph.sort()
    return product


def _rounded(value: ir.Value, dtype: ir.DataType) -> np.ndarray:
    """A constant's array, finite where it was: beyond the largest number stands that."""
    assert value.const_value is not None
    array = value.const_value.numpy()
    if dtype == ir.DataType.FLOAT16:
        largest = float(np.finfo(np.float16).max)
        array = np.where(np.isfinite(array), array.clip(-largest, largest), array)
    return array.astype(dtype.numpy())


def _is_float(value: ir.Value | None) -> bool:
    return value is not None and value.dtype == ir.DataType.FLOAT


def _is_half(value: ir.Value) -> bool:
    return value.dtype in PRECISIONS.values()
