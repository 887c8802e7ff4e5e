"""ONNX's shape inference, of whose result only what is new is read.

`onnx_ir.passes.common.ShapeInferencePass` makes a second model of all that ONNX answers, which
takes longer than to ask it.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import _c_api_utils

from onnxplain.export.autodiff import dependents
from onnxplain.export.budget import TIMES
from onnxplain.export.subgraphs import operands


def symbols(graph: ir.Graph) -> frozenset[str]:
    """The names of the open sizes of a graph's inputs."""
    found = (n for x in graph.inputs for n in x.shape or () if isinstance(n, ir.SymbolicDim))
    return frozenset(n.value for n in found if n.value is not None)


def is_known(value: ir.Value, open_: frozenset[str]) -> bool:
    """Whether there is nothing to find of a value's type and shape: sizes are numbers, or open
    ones of the inputs. So it is of a result that is left out."""
    if value.type is None or value.shape is None:
        return value.name == ""
    return all(isinstance(n, int) or n.value in open_ for n in value.shape)


def infer_shapes(model: ir.Model, data_prop: bool = True) -> None:
    """Give values the shapes and types that ONNX finds, where there is something to find; none,
    where something contradicts it.

    Args:
        data_prop: whether the elements of small vectors of sizes are followed too.
    """
    graph, open_ = model.graph, symbols(model.graph)
    alone = len(list(model.graphs())) == 1
    computed = (y for node in graph for y in node.outputs)
    if alone and all(is_known(value, open_) for value in (*graph.initializers.values(), *computed)):
        return
    asked: list[onnx.ModelProto] = []

    def ask(proto: onnx.ModelProto) -> onnx.ModelProto:
        asked.append(proto)
        return onnx.shape_inference.infer_shapes(
            proto, check_type=True, strict_mode=True, data_prop=data_prop
        )

    try:
        answer = _c_api_utils.call_onnx_api(ask, model)
    except Exception:
        return
    if not alone:
        _take_all(model, ir.from_proto(answer))
        return
    known, found = _types(asked[0]), _types(answer)
    values = ir.convenience.create_value_mapping(model.graph, include_subgraphs=False)
    for name in found.keys() & values.keys():
        if found[name] != known.get(name):
            _take(values[name], found[name])


def _take_all(model: ir.Model, answer: ir.Model) -> None:
    """What was found of a graph's values, and of those of the bodies within. (`onnx_ir`'s own pass
    makes tensors of sequences.)"""
    for graph, found in zip(model.graphs(), answer.graphs(), strict=True):
        values = ir.convenience.create_value_mapping(graph)
        for name, y in ir.convenience.create_value_mapping(found).items():
            if name in values and y.shape is not None:
                values[name].shape = y.shape
            if name in values and y.type is not None:
                values[name].type = y.type


def _types(model: onnx.ModelProto) -> dict[str, onnx.TypeProto]:
    graph = model.graph
    several = (graph.value_info, graph.input, graph.output)
    return {info.name: info.type for infos in several for info in infos}


def _take(value: ir.Value, found: onnx.TypeProto) -> None:
    shape = ir.serde.deserialize_type_proto_for_shape(found)
    kind = ir.serde.deserialize_type_proto_for_type(found)
    if shape is not None and value.shape != shape:
        value.shape = shape
    if kind is not None:
        value.type = kind


def infer_node(node: ir.Node, opsets: Mapping[str, int]) -> None:
    """Give a node's results the shapes and types that follow from its operands'; none, where ONNX
    finds none."""
    if node.domain not in opsets:
        return
    given = [x for x in node.inputs if x is not None]
    constants = ((x, ir.convenience.get_const_tensor(x)) for x in given)
    try:
        found = onnx.shape_inference.infer_node_outputs(
            onnx.defs.get_schema(node.op_type, opsets[node.domain], node.domain),
            ir.to_proto(node),
            {x.name: ir.to_proto(x).type for x in given},
            {x.name: ir.to_proto(c) for x, c in constants if c is not None and c.size <= _FEW},
            opset_imports=[onnx.helper.make_opsetid(*opset) for opset in opsets.items()],
        )
    except Exception:
        return
    for y in node.outputs:
        if y.name in found:
            _take(y, found[y.name])


_FEW = 64  # elements of a constant that may decide a shape


class Corrected:
    """Values of which ONNX has found other shapes than they have, while a graph's nodes are gone
    through in their order: what follows from them is inferred again node by node. Where that does
    not suffice, the whole graph is at the end, or as soon as a shape that it left open is needed.
    """

    def __init__(self, model: ir.Model) -> None:
        self._model = model
        self._open = symbols(model.graph)
        self._following: set[ir.Value | None] = set()
        self._left = False
        self._times = 0

    def add(self, node: ir.Node) -> None:
        """A node, put right, of whose results other shapes were found."""
        before = [y.shape for y in node.outputs]
        for y in node.outputs:
            y.shape = None
        infer_node(node, self._model.graph.opset_imports)
        for y, shape in zip(node.outputs, before, strict=True):
            if y.shape != shape:
                self._following.add(y)
                self._left |= not is_known(y, self._open)

    def passes(self, node: ir.Node) -> None:
        """The next node, whose results may follow from these values."""
        if not self._following.isdisjoint(operands(node)):
            self.add(node)

    def needs(self, value: ir.Value) -> None:
        """The shape of a value is about to be read."""
        if value.shape is None or (value in self._following and not is_known(value, self._open)):
            self._infer()

    def settle(self) -> None:
        """Infer the shapes of what follows."""
        if self._left:
            self._infer()

    def _infer(self) -> None:
        self._times += 1
        TIMES.check(self._times)
        for stale in dependents(self._model.graph, [v for v in self._following if v is not None]):
            if stale is not None:
                stale.shape = None
        self._following.clear()
        self._left = False
        infer_shapes(self._model)
