"""What a rule emitted, held to ONNX: its operators, and the shapes of its cotangents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
import onnx_ir as ir
from onnx import checker, helper, numpy_helper, shape_inference

_STANDARD = ("", "ai.onnx")
_BATCH = 10007  # a prime: its multiples are nothing else
_SMALL = 1024  # elements of a constant that shapes may be computed from

Sizes = list[int | None] | None
"""A shape for a batch of `_BATCH`, None where it is not known."""


def invalid(nodes: Sequence[ir.Node], opset: int) -> tuple[ir.Node, str] | None:
    """The first node of ONNX's domain that is none of that opset, and why; of control flow, those
    in its bodies, as the checker takes what a body reads from around it for missing."""
    for node in nodes:
        inner = [a.as_graph() for a in node.attributes.values() if a.type == _BODY]
        if inner:
            if (wrong := invalid([n for body in inner for n in body], opset)) is not None:
                return wrong
        elif node.domain in _STANDARD and (form := (_form(node), opset)) not in _valid:
            if (why := _refused(node, opset)) is not None:
                return node, why
            _valid.add(form)
    return None


_BODY = ir.AttributeType.GRAPH

_valid: set[tuple[object, int]] = set()
"""Forms of nodes, at an opset, that the checker has let pass: a sweep emits few, many times."""


def _form(node: ir.Node) -> object:
    """What the checker looks at."""
    attributes = frozenset((each.name, each.type) for each in node.attributes.values())
    return node.op_type, tuple(x is None for x in node.inputs), len(node.outputs), attributes


def _refused(node: ir.Node, opset: int) -> str | None:
    context: Any = checker.C.CheckerContext()
    context.ir_version, context.opset_imports = onnx.IR_VERSION, {"": opset}
    try:
        checker.check_node(ir.to_proto(node), context)
    except checker.ValidationError as error:
        return str(error).partition("\n")[0]
    return None


def most_inputs(operator: str, opset: int) -> int | None:
    """How many inputs an operator of ONNX can have; None for another."""
    known = onnx.defs.has(operator)
    return onnx.defs.get_schema(operator, opset).max_input if known else None


def is_open(g: ir.Value, x: ir.Value) -> bool:
    """Whether the two may have the same shape, and are not known to."""
    if g.shape is None or x.shape is None:
        return x.shape is not None
    return list(map(str, g.shape)) != list(map(str, x.shape))


def repeats(g: ir.Value, x: ir.Value, nodes: Sequence[ir.Node], graph: ir.Graph) -> bool:
    """Whether a value that the nodes compute has another multiple of the batch than x has."""
    firsts = [dim for y in graph.inputs for dim in list(y.shape or ())[:1]]
    own = {name for dim in x.shape or () if not isinstance(dim, int) for name in dim.free_symbols()}
    batch = frozenset(str(dim.value) for dim in firsts if not isinstance(dim, int)) & own
    wanted = _sizes(x.shape, batch)
    found = _inferred(g, nodes, graph, batch) if g.producer() in nodes else _sizes(g.shape, batch)
    pairs = zip(found or [], wanted or [], strict=False)
    return any(a != b and a % _BATCH == b % _BATCH == 0 for a, b in pairs if a and b)


def _inferred(
    value: ir.Value, nodes: Sequence[ir.Node], graph: ir.Graph, batch: frozenset[str]
) -> Sizes:
    """The shape that ONNX finds with a number in place of the batch, so that its multiples show."""
    made = {y for node in nodes for y in node.outputs}
    read = {x for node in nodes for x in node.inputs if x is not None} - made
    tensors = {x: ir.convenience.get_const_tensor(x) for x in read}
    emitted = helper.make_graph(
        [ir.to_proto(node) for node in nodes],
        "emitted",
        [
            helper.make_tensor_value_info(str(x.name), x.dtype or 0, _sizes(x.shape, batch))
            for x in read
        ],
        [],
        [
            numpy_helper.from_array(tensor.numpy(), x.name)
            for x, tensor in tensors.items()
            if tensor is not None and tensor.size <= _SMALL
        ],
    )
    opsets = [
        helper.make_opsetid(domain, graph.opset_imports.get(domain, 1))
        for domain in {"", *(node.domain for node in nodes)}
    ]
    model = helper.make_model(emitted, opset_imports=opsets)
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph.value_info
    shapes = {each.name: each.type.tensor_type.shape for each in inferred}
    if value.name not in shapes:
        return None
    return [dim.dim_value if dim.HasField("dim_value") else None for dim in shapes[value.name].dim]


def _sizes(shape: ir.Shape | None, batch: frozenset[str]) -> Sizes:
    return None if shape is None else [_size(dim, batch) for dim in shape]


def _size(dim: int | ir.SymbolicDim, batch: frozenset[str]) -> int | None:
    size = dim if isinstance(dim, int) else dim.evaluate(dict.fromkeys(batch, _BATCH))
    return size if isinstance(size, int) else None
