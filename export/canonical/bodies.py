"""The bodies of `If`, `Loop` and `Scan` that stay, each treated as a model of its own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import onnx_ir as ir

from onnxplain.export.canonical.declared import merged
from onnxplain.export.shapes import infer_shapes
from onnxplain.export.subgraphs import (
    CONTROL_FLOW,
    bodies,
    captured,
    put_instead,
    read_around,
)
from onnxplain.export.tensors import attribute

Work: TypeAlias = Callable[[ir.Model], object]


def name_apart(graph: ir.Graph, around: Collection[str | None] = ()) -> None:
    """Values within that have the name of one around them get a name of their own: what is inferred
    is told by names."""
    own = [
        *graph.inputs,
        *graph.initializers.values(),
        *(y for node in graph for y in node.outputs),
    ]
    taken = {*around, *(value.name for value in own)}
    for value in own:
        name, i = value.name, 0
        while value.name and value.name in (taken if i else around):
            value.name, i = f"{name}_{i}", i + 1
        taken.add(value.name)
    for node in graph:
        for body in bodies(node):
            name_apart(body, taken)


def in_bodies(model: ir.Model, work: Work) -> None:
    """Do `work` on each body, as on a model whose inputs are also what it reads from around it."""
    for node in model.graph:
        if _holds_tensors(node):
            for body in bodies(node):
                with _apart(model, node, body) as alone:
                    work(alone)


def infer_with_bodies(model: ir.Model, simplify: Work) -> None:
    """Infer all shapes, those within bodies too: of what goes from round to round, the shape that
    it has in every round. ONNX's own inference says nothing of these.

    Args:
        simplify: folds constants and infers shapes, here in bodies, whose sizes it then knows.
    """
    infer_shapes(model)
    for node in model.graph:
        if not _holds_tensors(node):
            continue
        for body in bodies(node):
            with _apart(model, node, body) as alone:
                _infer_round(alone, node, simplify)
        before = [y.shape for y in node.outputs]
        for y, shape in zip(node.outputs, results(node), strict=True):
            y.shape = merged(y.shape, shape)
        if before != [y.shape for y in node.outputs]:
            infer_shapes(model)


def _holds_tensors(node: ir.Node) -> bool:
    """Whether a node has bodies, and nothing but tensors in and around them."""
    inner = bodies(node)
    around = [v for v in (*node.inputs, *captured(node), *node.outputs) if v is not None and v.name]
    within = (y.type for body in inner for each in body.all_nodes() for y in each.outputs)
    tensors = all(isinstance(v.type, ir.TensorType) for v in around) and all(
        kind is None or isinstance(kind, ir.TensorType) for kind in within
    )
    return bool(inner) and node.op_type in CONTROL_FLOW and tensors


@contextmanager
def _apart(model: ir.Model, node: ir.Node, body: ir.Graph) -> Iterator[ir.Model]:
    """A body as a model, and then in its place again: its constants are those of the graph around
    it, its values are named after the node, and each output is computed within."""
    graph, own = model.graph, len(body.inputs)
    read = {x: ir.Value(name=x.name, type=x.type, shape=x.shape) for x in read_around(body)}
    for x, inner in read.items():
        inner.const_value = x.const_value
        if x.const_value is not None:
            body.register_initializer(inner)
        else:
            body.inputs.append(inner)
    put_instead(body, read)
    body.opset_imports.update(graph.opset_imports)
    alone = ir.Model(body, ir_version=model.ir_version)
    yield alone
    model.functions.update(alone.functions)
    body.inputs[own:] = []
    for i, y in enumerate(body.outputs):
        if y.producer() is None or y in body.outputs[:i]:
            copy = ir.node("Identity", [y])
            copy.outputs[0].type, copy.outputs[0].shape = y.type, y.shape
            body.append(copy)
            body.outputs[i] = copy.outputs[0]
    put_instead(body, {inner: x for x, inner in read.items()})
    for value in list(body.initializers.values()):
        del body.initializers[str(value.name)]
        if value not in read.values():
            value.name = _free(graph, f"{node.name}.{value.name}")
            graph.register_initializer(value)
    for value in [*body.inputs, *(y for inner in body for y in inner.outputs)]:
        if value.name and not value.name.startswith(f"{node.name}."):
            value.name = f"{node.name}.{value.name}"


def _free(graph: ir.Graph, name: str) -> str:
    taken, free, i = graph.initializers, name, 0
    while free in taken:
        free, i = f"{name}_{i}", i + 1
    return free


def _infer_round(model: ir.Model, node: ir.Node, simplify: Work) -> None:
    """Infer a body's shapes: from those of the first round, then with all sizes open that another
    round changes."""
    body = model.graph
    states, slices = _states(node, body), _slices(node, body)
    for x, inner in states:
        _begin(body, inner, x, None if x.shape is None else ir.Shape(list(x.shape)))
    for x, inner, axis in slices:
        sizes = None if x.shape is None else list(x.shape)
        if sizes is not None:
            del sizes[axis]
        _begin(body, inner, x, None if sizes is None else ir.Shape(sizes))
    while node.op_type == "Loop":
        trial = model.clone()
        infer_with_bodies(trial, simplify)
        simplify(trial)
        ends = trial.graph.outputs[1 : 1 + len(states)]
        changing = [
            (inner, shape)
            for (_, inner), end in zip(states, ends, strict=True)
            if str(shape := joined(inner.shape, end.shape)) != str(inner.shape)
        ]
        if not changing:
            break
        for inner, shape in changing:
            _begin(body, inner, inner, shape)
    infer_with_bodies(model, simplify)
    simplify(model)


def _begin(body: ir.Graph, inner: ir.Value, x: ir.Value, shape: ir.Shape | None) -> None:
    """A round begins with a value of another shape: what follows has none that is known."""
    if inner.shape is not None and str(inner.shape) != str(shape):
        for node in body.all_nodes():
            for y in node.outputs:
                y.shape = None
    inner.shape, inner.type = shape, inner.type or x.type


def joined(a: ir.Shape | None, b: ir.Shape | None) -> ir.Shape | None:
    """What is known of a shape that is either."""
    if a is None or b is None or len(a) != len(b):
        return None
    return ir.Shape([m if m == n else None for m, n in zip(a, b, strict=True)])


def _states(node: ir.Node, body: ir.Graph) -> list[tuple[ir.Value, ir.Value]]:
    """Each value that goes from round to round: as the node is given it, and as a round begins."""
    first = 2 if node.op_type == "Loop" else 0
    count = len(node.inputs) - (
        attribute(node, "num_scan_inputs", 0) if node.op_type == "Scan" else 0
    )
    if node.op_type == "If":
        return []
    pairs = zip(node.inputs[first:count], body.inputs[first:count], strict=True)
    return [(x, inner) for x, inner in pairs if x is not None]


def _slices(node: ir.Node, body: ir.Graph) -> list[tuple[ir.Value, ir.Value, int]]:
    """Each value that a Scan takes slices of, a slice, and along which axis."""
    if node.op_type != "Scan":
        return []
    count = attribute(node, "num_scan_inputs", 0)
    axes = node.attributes.get_ints("scan_input_axes", [0] * count)
    at = len(node.inputs) - count
    both = zip(node.inputs[at:], body.inputs[at : at + count], axes, strict=True)
    return [(x, inner, axis) for x, inner, axis in both if x is not None]


def results(node: ir.Node) -> list[ir.Shape | None]:
    """The shapes of a node's outputs, as its bodies say."""
    first, *others = bodies(node)
    if node.op_type == "If":
        both = zip(first.outputs, others[0].outputs, strict=True)
        return [joined(a.shape, b.shape) for a, b in both]
    outputs = first.outputs[1 if node.op_type == "Loop" else 0 :]
    states = _states(node, first)
    stacked = outputs[len(states) :]
    axes = node.attributes.get_ints("scan_output_axes", [0] * len(stacked))
    rounds = [x.shape[axis] for x, _, axis in _slices(node, first) if x.shape is not None]
    shapes: list[ir.Shape | None] = [inner.shape for _, inner in states]
    for y, axis in zip(stacked, axes, strict=True):
        sizes = None if y.shape is None else list(y.shape)
        if sizes is not None:
            sizes.insert(axis % (len(sizes) + 1), rounds[0] if rounds else ir.SymbolicDim(None))
        shapes.append(None if sizes is None else ir.Shape(sizes))
    return shapes
