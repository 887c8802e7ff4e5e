"""ONNX's shape inference, of whose result only what is new is read.

`onnx_ir.passes.common.ShapeInferencePass` makes a second model of all that ONNX answers, which
takes longer than to ask it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import _c_api_utils


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
    graphs = zip(model.graphs(), _graphs(asked[0].graph), _graphs(answer.graph), strict=True)
    for graph, before, after in graphs:
        known, found = _types(before), _types(after)
        values = ir.convenience.create_value_mapping(graph, include_subgraphs=False)
        for name in found.keys() & values.keys():
            if found[name] != known.get(name):
                _take(values[name], found[name])


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and those within it, each before its own, as `ir.Model.graphs` has them."""
    yield graph
    attributes = (attribute for node in graph.node for attribute in node.attribute)
    for attribute in attributes:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield from _graphs(attribute.g)


def _types(graph: onnx.GraphProto) -> dict[str, onnx.TypeProto]:
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
