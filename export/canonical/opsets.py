"""Opsets: an older one is raised to 20, and what came later is spelled in its operators."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx.version_converter
import onnx_ir as ir
from onnx_ir.analysis import analyze_implicit_usage
from onnx_ir.passes import common

from onnxplain.errors import SourceError
from onnxplain.export.autodiff import operator_name
from onnxplain.export.canonical.emit import Emitted, Emitter, replace
from onnxplain.export.canonical.patterns.spelling import made_by, single_user
from onnxplain.export.canonical.patterns.spelling import replace as replace_value
from onnxplain.export.canonical.quantisers import is_dynamic_quantiser
from onnxplain.export.canonical.spelled.table import spelling_of
from onnxplain.export.operators import OPERATORS
from onnxplain.export.shapes import infer_shapes
from onnxplain.export.tensors import array_of, attribute, dims, rank

OPSET, IR_VERSION = 20, 9
SCAN_8 = "onnxplain.opset8"
"""The domain of a Scan that has a batch, until it is written out."""
_LARGE = 1000  # bytes; larger are weights, which no conversion looks into


def raise_opset(model: ir.Model) -> ir.Model:
    """The same model at opset 20 or newer; the model given is consumed.

    Raises:
        SourceError: onnx has no conversion from its opset.
    """
    version = opset_of(model)
    model.graph.opset_imports.pop("ai.onnx", None)
    model.graph.opset_imports[""] = version
    _give_axes(model)
    if version >= OPSET:
        return model
    for node in list(model.graph.all_nodes()):
        if node.op_type == "Scan" and version < 9:
            _set_apart(model, node)
        if (node.op_type == "LayerNormalization" and version < 17) or (
            node.op_type == "SimplifiedLayerNormalization"
        ):
            node.domain = "com.microsoft"  # ONNX Runtime's own, before ONNX had one
            model.graph.opset_imports["com.microsoft"] = 1
        if node.op_type == "Pad" and node.attributes.get_string("mode", "constant") != "constant":
            node.attributes.pop("value", None)  # which the conversion leaves, where none is read
        if node.op_type == "Hardmax" and version < 13:
            replace(node, _over_all_from)
    weights = Weights(model)
    model.ir_version = max(model.ir_version or 0, 4)  # before, initializers were inputs too
    try:
        raised = onnx.version_converter.convert_version(ir.to_proto(model), OPSET)
    except Exception as error:
        raise SourceError(f"cannot raise opset {version} to {OPSET}: {error}") from error
    model = ir.from_proto(raised)
    weights.restore(model)
    if version <= 10:
        for node in list(model.graph.all_nodes()):
            if node.op_type == "Resize":
                _place_pixels(node)
    model.ir_version = max(model.ir_version or 0, IR_VERSION)
    return model


def _set_apart(model: ir.Model, node: ir.Node) -> None:
    """ONNX's conversion takes the batch away from a Scan of opset 8, and from all around it."""
    node.domain = SCAN_8
    model.graph.opset_imports[SCAN_8] = 1
    directions = node.attributes.pop("directions", None)
    if directions is not None:
        node.attributes.add(ir.AttrInt64s("scan_input_directions", directions.as_ints()))


def _give_axes(model: ir.Model) -> None:
    """Normalisations that left their axes to the default: inference asks for what is written."""
    for node in model.graph.all_nodes():
        if node.op_type == "MeanVarianceNormalization" and "axes" not in node.attributes:
            node.attributes.add(ir.AttrInt64s("axes", [0, 2, 3]))


def _over_all_from(emit: Emitter, node: ir.Node) -> ir.Value:
    """A Hardmax of before opset 13: over its axis and all after it, which no conversion says."""
    (x,) = node.inputs
    rows = emit("Flatten", x, axis=attribute(node, "axis", 1))
    return emit("Reshape", emit("Hardmax", rows, axis=1), emit("Shape", x))


def _place_pixels(node: ir.Node) -> None:
    """Until opset 10 a pixel was at its index times the scale; since then at its centre.

    The nearest was the one below, and where an axis shrinks the one above, as in ONNX Runtime.
    """
    node.attributes.add(ir.AttrString("coordinate_transformation_mode", "asymmetric"))
    node.attributes.add(ir.AttrString("nearest_mode", "floor"))
    given = node.inputs[2] if len(node.inputs) > 2 else None
    scales = array_of(given)
    if scales is None or node.attributes.get_string("mode", "nearest") != "nearest":
        return
    if (scales >= 1).all():
        return
    attributes = {name: a.value for name, a in node.attributes.items()}

    def form(emit: Emitter, node: ir.Node) -> Emitted:
        y, larger = node.inputs[0], np.maximum(scales, 1).astype(np.float32)
        if (larger > 1).any():
            y = emit("Resize", y, None, larger, **attributes)
        smaller = np.minimum(scales, 1).astype(np.float32)
        return emit("Resize", y, None, smaller, **attributes | {"nearest_mode": "ceil"})

    replace(node, form)


def opset_of(model: ir.Model) -> int:
    """The version of the standard operators that a model imports."""
    imports = model.graph.opset_imports
    return imports.get("", imports.get("ai.onnx", 1))


def spell_old_softmax(graph: ir.Graph) -> None:
    """Softmax over the last axis, as it is now, where the conversion from opset 12 flattened it.

    Until then it was over all axes from one on.
    """
    for node in list(graph):
        if node.op_type not in ("Softmax", "LogSoftmax"):
            continue
        flat = made_by(node.inputs[0], "Reshape", "Flatten")
        back = single_user(node.outputs[0])
        if flat is None or back is None or back.op_type != "Reshape":
            continue
        x, y = flat.inputs[0], back.outputs[0]
        same = x is not None and None not in (x.shape, y.shape) and x.shape == y.shape
        last = attribute(node, "axis", -1) in (-1, rank(node.outputs[0]) - 1)
        if same and last and x is not None and dims(x)[-1] == dims(node.outputs[0])[-1]:
            replace_value(y, node.op_type, [x], {"axis": -1})


class Weights:
    """Large initializers taken out of a model, to be put back into one made from it.

    Inside, they are inputs: ONNX's conversion copies a model as one message, which must stay below
    2 GB.
    """

    def __init__(self, model: ir.Model) -> None:
        graph = model.graph
        self._tensors = {
            name: value.const_value
            for name, value in graph.initializers.items()
            if value.const_value is not None and value.const_value.nbytes > _LARGE
        }
        self._inputs = {value.name for value in graph.inputs}
        for name, tensor in self._tensors.items():
            value = graph.initializers.pop(name)
            value.dtype = tensor.dtype
            value.shape = ir.Shape(tensor.shape)  # type: ignore[arg-type]  # numbers alone
            value.const_value = None
            if name not in self._inputs:
                graph.inputs.append(value)

    def restore(self, model: ir.Model) -> None:
        graph = model.graph
        values = {value.name: value for value in graph.inputs}
        for name, tensor in self._tensors.items():
            if (value := values.get(name)) is None:
                continue  # the conversion left it as it was
            value.const_value = tensor
            graph.register_initializer(value)
            if name not in self._inputs:
                graph.inputs.remove(value)


def spell_newer(model: ir.Model) -> bool:
    """Spell the operators that came after opset 20 in those that it has, and some without a rule.

    Ranks and sizes must be known. Attention becomes MatMul → Softmax → MatMul; what has no form
    in `SPELLINGS`, and no row in the table of operators, becomes ONNX's own function body.

    Returns:
        Whether any has become its body.

    Raises:
        SourceError: an operator's form that has no such spelling; the message names it.
    """
    called = False
    while spelled := [node for node in model.graph.all_nodes() if _is_spelled(model, node)]:
        for node in spelled:
            if (spelling := spelling_of(node)) is not None:
                replace(node, spelling.form)
            else:
                _call_body(model, node)
                called = True
        common.InlinePass()(model)  # a body may call newer operators too
        infer_shapes(model)
    return called


def _is_spelled(model: ir.Model, node: ir.Node) -> bool:
    """Whether a node has a spelling, is newer than opset 20, or has a body and no row."""
    if spelling_of(node) is not None:
        return True
    version = model.graph.opset_imports.get(node.domain)
    if version is None or operator_name(node) in OPERATORS or is_dynamic_quantiser(node):
        return False
    if node.domain == "" and _since(node.op_type, OPSET) is None:
        return _since(node.op_type, version) is not None
    return _has_body(node.op_type, version, node.domain)


@cache
def _has_body(op_type: str, version: int, domain: str) -> bool:
    if not onnx.defs.has(op_type, version, domain):
        return False
    schema = onnx.defs.get_schema(op_type, version, domain)
    return bool(schema.has_function or schema.has_context_dependent_function)


def declare_opset(model: ir.Model) -> None:
    """Declare opset 20 where every node means the same in it, so that older runtimes run it."""
    version = opset_of(model)
    if version > OPSET and all(
        _valid_at(node, OPSET) for node in model.graph.all_nodes() if node.domain == ""
    ):
        model.graph.opset_imports[""] = OPSET
        model.ir_version = IR_VERSION


@cache
def _since(op_type: str, version: int) -> int | None:
    """The opset that gave the operator the form it has in opset `version`."""
    try:
        return int(onnx.defs.get_schema(op_type, version, "").since_version)
    except onnx.defs.SchemaError:
        return None


def _valid_at(node: ir.Node, version: int) -> bool:
    if _since(node.op_type, version) is None:
        return False
    schema = onnx.defs.get_schema(node.op_type, version, "")
    allowed: list[Any] = list(schema.inputs)
    if len(node.inputs) > len(allowed):
        variadic = schema.inputs and schema.inputs[-1].option.name == "Variadic"
        if not variadic:
            return False
        allowed += [schema.inputs[-1]] * (len(node.inputs) - len(allowed))
    types_fit = all(
        x is None or x.dtype is None or f"tensor({x.dtype.name.lower()})" in formal.types
        for x, formal in zip(node.inputs, allowed, strict=False)
    )
    return types_fit and set(node.attributes) <= set(schema.attributes)


def _call_body(model: ir.Model, node: ir.Node) -> None:
    """Make the node a call of its operator's own function body.

    ONNX writes a node's subgraphs out in it: what they take from around them is handed to the call.
    """
    version = model.graph.opset_imports[node.domain]
    schema = onnx.defs.get_schema(node.op_type, version, node.domain)
    proto = onnx.FunctionProto()
    if schema.has_context_dependent_function:
        types = [_type_proto(x).SerializeToString() for x in node.inputs]
        at = max(v for v in schema.context_dependent_function_opset_versions if v <= version)
        serialized = ir.to_proto(node).SerializeToString()
        body = schema.get_context_dependent_function_with_opset_version(at, serialized, types)
        proto.ParseFromString(body)
    elif schema.has_function:
        proto.CopyFrom(schema.function_body)
    else:
        raise SourceError(
            f"operator {node.op_type} (node {node.name!r}), of opset {schema.since_version}, has "
            "no spelling in older operators"
        )
    captured = _captured(node)
    names = set(proto.input).union(*(inner.output for inner in proto.node))
    if clash := sorted(str(x.name) for x in captured if x.name in names):
        raise SourceError(
            f"a subgraph of {node.op_type} {node.name!r} reads {clash[0]!r}, the name of another "
            "value in what ONNX makes of the operator; rename it"
        )
    del proto.output[len(node.outputs) :]
    proto.domain = f"onnxplain.body.{node.op_type}"
    proto.name = f"body_{len(model.functions)}"
    for known in proto.opset_import:
        if known.domain == "":
            known.version = opset_of(model)  # the body's operators mean the same in it
    given = list(node.inputs) + [None] * (len(proto.input) - len(node.inputs)) + captured
    proto.input.extend(str(x.name) for x in captured)
    function = ir.from_proto(proto)
    model.functions[function.identifier()] = function
    model.graph.opset_imports[proto.domain] = 1
    attributes = [a for a in node.attributes.values() if a.type != ir.AttributeType.GRAPH]
    call = ir.Node(proto.domain, proto.name, given, attributes, num_outputs=len(node.outputs))
    assert node.graph is not None
    ir.convenience.replace_nodes_and_values(
        node.graph, node, [node], [call], node.outputs, call.outputs
    )


def _captured(node: ir.Node) -> list[ir.Value]:
    """What a node's subgraphs take from around them."""
    graphs = [a.as_graph() for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH]
    if not graphs or node.graph is None:
        return []
    used = analyze_implicit_usage(node.graph)
    values = {x for graph in graphs for x in used.get(graph, ())}
    return sorted(values, key=lambda x: str(x.name))


def _type_proto(value: ir.Value | None) -> onnx.TypeProto:
    if value is None or value.type is None:
        return onnx.TypeProto()
    proto: onnx.TypeProto = ir.serde.serialize_type(value.type)
    if value.shape is not None:
        ir.serde.serialize_shape_into(proto, value.shape)
    return proto
