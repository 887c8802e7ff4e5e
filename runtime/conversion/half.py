"""Explain graphs in half precision that stay right.

Weights and activations are stored in float16 or bfloat16; what would overflow or lose its meaning
there is computed in float32, between casts. Which operators those are the file says
(`contract.precision`). They are:

- exponentials and powers, with the differences that go into them: of half numbers near 10, x/T is
  known to 0.03 only, and e^x beyond 11 is infinite in float16;
- statistics and sums over many elements (norms, means over positions, softmax), whose terms are
  small beside the sum, and the square roots and quotients of them, whose ε is 0 in float16;
- the steps of an ascent, whose norms sum the squares of a whole image;
- in bfloat16, a convolution and the depthwise one behind it with which a network begins: its
  folded normalisation leaves large weights that cancel (see `runtime.conversion.stem`);
- what makes a photograph's pixels the input, and the pullback what is put out;
- what draws the explanation and ranks the classes;
- also in bfloat16, the operators that TensorRT-RTX (1.7) refuses in it;
- the inputs and outputs, as the contract has them.

An elementwise operation between those stays in float32 with them, so that a value is cast where it
leaves such a part, and nowhere within.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from onnxplain.contract.explain import PULLBACK, TARGET
from onnxplain.contract.objective import OBJECTIVE, SEED
from onnxplain.contract.precision import ARRIVED, CAMERA, DRAWING, OperatorPrecision
from onnxplain.errors import BackendError
from onnxplain.initializers import initializer
from onnxplain.runtime.conversion.functions import inline_functions
from onnxplain.runtime.conversion.quantised import float_biases
from onnxplain.runtime.conversion.stem import stem

_BFLOAT16 = ir.DataType.BFLOAT16
_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})

PRECISIONS = {"float16": ir.DataType.FLOAT16, "bfloat16": _BFLOAT16}

_SEED = 1024.0
"""What the target's cotangent is multiplied by in float16: a mean over 7 × 7 positions and a few
layers take it towards 6e-8, below which float16 has nothing. What the sweeps arrive with is divided
by it again; every rule is homogeneous in the cotangent."""

_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)

_BFLOAT16_OPSET = 22  # the first whose convolutions and pools take it


def convert(path: Path, precision: str, keep_calls: bool = False) -> bytes:
    """An explain graph of a file, in half precision or with `float_biases`, as a file's bytes.

    Args:
        path: as `onnxplain.export` writes it; weights beside it are taken in.
        precision: "float16" or "bfloat16"; or "int8" of a network quantised already.
        keep_calls: as for `to_half`.

    Raises:
        BackendError: an unknown precision, or a graph that cannot be converted.
    """
    model = ir.load(path)
    ir.external_data.load_to_model(model)
    if precision == "int8":
        float_biases(model)
    else:
        to_half(model, precision, keep_calls)
    return ir.to_proto(model).SerializeToString()


def to_half(model: ir.Model, precision: str, keep_calls: bool = False) -> None:
    """Convert a float32 explain graph in place; its inputs and outputs stay float32.

    Functions (`--kernels`) are inlined: their bodies too have parts that stay in float32.

    Args:
        model: as `onnxplain.export` writes it.
        precision: "float16" or "bfloat16".
        keep_calls: drop the functions instead, and give halves to the operators of the same names,
            which compute in float32 within.

    Raises:
        BackendError: an unknown precision, or a graph with control flow.
    """
    if precision not in PRECISIONS:
        raise BackendError(f"half precision is float16 or bfloat16, not {precision!r}")
    if keep_calls:
        model.functions.clear()
    inline_functions(model)
    graph = model.graph
    for node in graph:
        if any(a.type in _GRAPHS for a in node.attributes.values()):
            raise BackendError(
                f"{precision} has no form of {node.op_type} {node.name!r}, which holds a graph of "
                "its own; use float32, or export what is asked many times with a chunk of all of it"
            )
    common.LiftConstantsToInitializersPass(lift_all_constants=True)(model)
    half = PRECISIONS[precision]
    operators = OperatorPrecision.find(model.metadata_props) or _cautious(graph)
    single: set[ir.Node] = set()
    if half == _BFLOAT16:
        version = model.opset_imports.get("", 0)
        model.opset_imports[""] = max(version, _BFLOAT16_OPSET)
        single = _stem(graph)
        single.update(node for node in graph if node.op_type in operators.float32_in_bfloat16)
    elif any(value.name == PULLBACK for value in graph.outputs):
        single = _scale_seed(graph)
    exact = f"{CAMERA}/", f"{DRAWING}/"
    single.update(node for node in graph if (node.name or "").startswith(exact))
    _Conversion(graph, half, operators, single).run()
    graph.sort()
    common.RemoveUnusedNodesPass()(model)


def _cautious(graph: ir.Graph) -> OperatorPrecision:
    """For a file that does not say: products in halves, all else in float32."""
    others = {node.op_type for node in graph} - _PRODUCTS
    return OperatorPrecision(tuple(others), float32_in_bfloat16=("ConvTranspose",))


class _Conversion:
    """One graph's: `single` are the nodes that compute in float32, `half` is what the others do.

    Args:
        operators: what the file says of its operators.
        single: nodes that compute in float32 whatever it says.
    """

    def __init__(
        self,
        graph: ir.Graph,
        half: ir.DataType,
        operators: OperatorPrecision,
        single: set[ir.Node],
    ) -> None:
        self.graph, self.half, self._inputs = graph, half, operators.float32_inputs
        self.single = _single_nodes(graph, operators, single)
        self._casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def run(self) -> None:
        graph, nodes = self.graph, list(self.graph)
        edges = [
            (node, index, x)
            for node in nodes
            for index, x in enumerate(node.inputs)
            if x is not None and _is_float(x) and index not in self._inputs.get(node.op_type, ())
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
                self._casts[key] = initializer(self.graph, name, rounded(value, dtype), dtype)
            else:
                cast = ir.node("Cast", [value], {"to": ir.AttrInt64("to", dtype)})
                cast.outputs[0].name, cast.outputs[0].shape = name, value.shape
                cast.outputs[0].dtype = dtype
                self.graph.append(cast)
                self._casts[key] = cast.outputs[0]
        return self._casts[key]


def _stem(graph: ir.Graph) -> set[ir.Node]:
    def producers(node: ir.Node) -> list[ir.Node]:
        return [made for x in node.inputs if x and (made := x.producer()) is not None]

    return stem(
        graph,
        producers,
        lambda node: node.op_type in _PRODUCTS,
        lambda node: node.op_type == "Conv" and node.attributes.get_int("group", 1) > 1,
    )


def _single_nodes(
    graph: ir.Graph, operators: OperatorPrecision, others: set[ir.Node]
) -> set[ir.Node]:
    """Those that the file says, the `others`, and what joins them."""
    nodes = list(graph)
    varying = {value for value in graph.inputs if _is_float(value)}
    for node in nodes:
        if not varying.isdisjoint(node.inputs) or not any(map(_is_float, node.inputs)):
            varying.update(filter(_is_float, node.outputs))
    single = {
        node
        for node in nodes
        if node.op_type in operators.float32
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
        if given and node.op_type not in operators.follow:
            return False
        if given and all(map(produced, given)):
            return True

        def reads_single(reader: ir.Node) -> bool:
            others = [x for x in arguments(reader) if x.producer() is not node]
            by_others = reader.op_type in operators.follow and others and all(map(produced, others))
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


def _scale_seed(graph: ir.Graph) -> set[ir.Node]:
    """Multiply the cotangent of the target, or of the objective, by `_SEED`, and divide by it what
    sweeps arrive with, or the pullback itself, in float32.

    Returns:
        The divisions; none where it cannot be told what to multiply.
    """
    seed = _seed(graph)
    if seed is None:
        return set()
    _multiplied(graph, seed, _SEED)
    passed = [node for node in graph if node.op_type == "Identity" and ARRIVED in (node.name or "")]
    divisions = {_multiplied(graph, node.outputs[0], 1 / _SEED) for node in passed}
    for value in list(graph.outputs) if not passed else ():
        if value.name == PULLBACK:
            value.name = f"{PULLBACK}_scaled"
            division = _multiplied(graph, value, 1 / _SEED)
            division.outputs[0].name = PULLBACK
            divisions.add(division)
    return divisions


def _seed(graph: ir.Graph) -> ir.Value | None:
    """Where the backward pass starts: the ones of an objective; of a classifier, the first float
    that is computed from the target."""
    if any(value.name == OBJECTIVE for value in graph.outputs):
        made = (value for node in graph for value in node.outputs)
        return next((value for value in made if value.name == SEED), None)
    reached = {value for value in graph.inputs if value.name == TARGET}
    for node in graph:
        if reached.isdisjoint(node.inputs):
            continue
        reached.update(node.outputs)
        if any(map(_is_float, node.outputs)):
            return node.outputs[0]
    return None


def _multiplied(graph: ir.Graph, value: ir.Value, factor: float) -> ir.Node:
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
    return node


def rounded(value: ir.Value, dtype: ir.DataType) -> np.ndarray:
    """A constant's array, finite where it was: what is too large becomes the largest number."""
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
