"""`If`, `Loop` and `Scan` whose course is short and known before any image is seen, written out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxplain.errors import NoRuleError, SourceError
from onnxplain.export.budget import NODES
from onnxplain.export.canonical.emit import (
    ROUNDS,
    Emitted,
    Emitter,
    check_rounds,
    integers,
    replace,
)
from onnxplain.export.canonical.evaluate import evaluated, telling_sizes
from onnxplain.export.canonical.opsets import SCAN_8, opset_of
from onnxplain.export.subgraphs import bodies
from onnxplain.export.tensors import attribute, dims, rank
from onnxplain.initializers import initializer


def unfold(model: ir.Model, simplify: Callable[[ir.Model], None]) -> None:
    """Write out the constant branches of `If`, and `Loop` and `Scan` of constant lengths.

    `simplify` folds constants and infers shapes; it is applied after each level of nesting.
    What depends on the image stays, and has rules (`onnxplain.export.vjps.control_flow`).
    """
    _name_apart(model.graph)
    while sum(_unfolded(model, node) for node in list(model.graph)):  # all of one level
        simplify(model)
        _name_apart(model.graph)


def refuse_sequences(nodes: Iterable[ir.Node]) -> None:
    """
    Raises:
        NoRuleError: one of the nodes, which a cotangent is to pass, is an operator of sequences, or
            control flow of sequences, or a `Scan` of before opset 9.
    """
    for node in nodes:
        sequences = [y for y in node.outputs if not isinstance(y.type, ir.TensorType | None)]
        if node.domain == "" and (sequences or "Sequence" in node.op_type):
            if node.op_type == "ReverseSequence":
                continue
            raise NoRuleError(
                f"{node.op_type} {node.name!r}: how many tensors its sequence holds, or the place "
                "of one among them, is not a constant of the network; fix the size of the axis "
                "that it splits, or export the network with Split and Concat in its place"
            )
        if node.domain == SCAN_8:
            raise NoRuleError(
                f"Scan {node.name!r} is that of opset 8, and its number of rounds is no constant; "
                "export to a newer opset"
            )


def _name_apart(graph: ir.Graph) -> None:
    """What has bodies gets names of its own, which what is written out is named after."""
    taken = {"", None}
    for node in graph:
        if bodies(node):
            name, i = node.name or node.op_type, 0
            while node.name in taken:
                node.name, i = f"{name}_{i}", i + 1
            taken.add(node.name)


def _unfolded(model: ir.Model, node: ir.Node) -> bool:
    if node.op_type == "If":
        condition = _known(node.inputs[0], opset_of(model)) if node.inputs[0] else None
        if condition is None:
            return False
        branch = node.attributes["then_branch" if condition.item() else "else_branch"].as_graph()
        _put(model.graph, node, inline(model.graph, node, branch, [], "branch"))
        return True
    if node.op_type == "Scan":
        return _unroll_scan(model.graph, node)
    return node.op_type == "Loop" and (_unroll(model, node) or _counted(node))


def _unroll(model: ir.Model, node: ir.Node) -> bool:
    """`Loop`: carried values go from round to round, scanned ones are stacked."""
    graph = model.graph
    body = node.attributes["body"].as_graph()
    rounds = _rounds(node, body, opset_of(model))
    if rounds is None:
        return False
    carried = list(node.inputs[2:])
    scanned: list[list[ir.Value | None]] = [[] for _ in range(len(body.outputs) - 1 - len(carried))]
    going = initializer(graph, f"{node.name}.going", np.array(True))
    for i in range(rounds):
        number = initializer(graph, f"{node.name}.round_{i}", np.array(i, np.int64))
        inputs = [number, going, *carried]
        _, *outputs = inline(graph, node, body, inputs, f"round_{i}")
        carried, scans = outputs[: len(carried)], outputs[len(carried) :]
        for stack, value in zip(scanned, scans, strict=True):
            stack.append(value)
    axes = _axes(graph, str(node.name), [0] if scanned else [])
    stacked = [_stack(graph, node, values, 0, axes) for values in scanned]
    _put(graph, node, [*carried, *stacked])
    return True


def _counted(node: ir.Node) -> bool:
    """A `Loop` that adds the same to a number at every round, as ONNX spells a Range of floats.

    Its rounds may be as many as floats of the image say: round i begins with start + i · step.
    """
    body = node.attributes["body"].as_graph()
    if len(node.inputs) != 3 or None in node.inputs or len(body.outputs) != 3:
        return False
    going, carried, scanned = (_source(y) for y in body.outputs)
    add = carried.producer()
    before = body.inputs[2]
    if going is not body.inputs[1] or scanned is not before or add is None or add.op_type != "Add":
        return False
    steps = [x for x in add.inputs if x is not None and x is not before]
    step = _source(steps[0]) if len(steps) == 1 else None
    start = node.inputs[2]
    if step is None or step.graph is body or start is None or rank(start) or rank(step):
        return False

    def form(emit: Emitter, node: ir.Node) -> Emitted:
        most, first, start = node.inputs
        some = emit("And", first, emit("Greater", most, np.array(0)))
        rounds = emit("Squeeze", emit("Where", some, most, np.array(0)))

        def after(count: ir.Value) -> ir.Value:
            return emit("Add", start, emit("Mul", emit("CastLike", count, start), step))

        return [after(rounds), after(emit("Range", np.array(0), rounds, np.array(1)))]

    replace(node, form)
    return True


def _source(value: ir.Value) -> ir.Value:
    """What a value is a copy of."""
    node = value.producer()
    if node is None or node.op_type != "Identity" or node.inputs[0] is None:
        return value
    return _source(node.inputs[0])


def _unroll_scan(graph: ir.Graph, node: ir.Node) -> bool:
    """`Scan`; that of opset 8 has a batch before all other axes, and scans each of it by itself.

    Raises:
        SourceError: there are too many rounds to write out, or one of opset 8 has a batch of open
            size, or sequences of several lengths.
    """
    if node.domain != SCAN_8:
        results = _scanned(graph, node, node.inputs, "")
        if results is not None:
            _put(graph, node, results)
        return results is not None
    lengths, *given = node.inputs
    batch = None if given[-1] is None or given[-1].shape is None else given[-1].shape[0]
    if lengths is not None or not isinstance(batch, int):
        raise SourceError(
            f"Scan {node.name!r} is that of opset 8, with lengths or an open batch; export to a "
            "newer opset"
        )
    axes = _axes(graph, str(node.name), [0])
    apart = [_slices(graph, node, x, 0, axes, batch) for x in given if x is not None]
    made = []
    for i, image in enumerate(zip(*apart, strict=True)):
        results = _scanned(graph, node, image, f"image_{i}.")
        if results is None:
            return False
        made.append(results)
    _put(graph, node, [_stack(graph, node, each, 0, axes) for each in zip(*made, strict=True)])
    return True


def _scanned(
    graph: ir.Graph, node: ir.Node, inputs: Sequence[ir.Value | None], label: str
) -> list[ir.Value | None] | None:
    """States go from round to round, each with one slice of what is scanned; None if not known."""
    body = node.attributes["body"].as_graph()
    count = attribute(node, "num_scan_inputs", 1)
    states, scanned = list(inputs[:-count]), list(inputs[-count:])
    results = len(body.outputs) - len(states)
    into, out_of = (
        node.attributes.get_ints(f"scan_{side}_axes", [0] * n)
        for side, n in (("input", count), ("output", results))
    )
    forwards, outwards = (
        node.attributes.get_ints(f"scan_{side}_directions", [0] * n)
        for side, n in (("input", count), ("output", results))
    )
    first = scanned[0]
    if any(x is None or x.shape is None for x in scanned) or first is None:
        return None
    rounds = first.shape[into[0]] if first.shape is not None else None
    if not isinstance(rounds, int) or (rounds > ROUNDS and node.domain != SCAN_8):
        return None
    check_rounds(node, rounds)
    axes = _axes(graph, f"{node.name}.{label}", [*into, *out_of])
    slices = [
        _slices(graph, node, x, axis, axes, rounds)[:: -1 if backwards else 1]
        for x, axis, backwards in zip(scanned, into, forwards, strict=True)
        if x is not None
    ]
    made: list[list[ir.Value | None]] = [[] for _ in range(results)]
    for i in range(rounds):
        taken = [values[i] for values in slices]
        outputs = inline(graph, node, body, [*states, *taken], f"{label}round_{i}")
        states = outputs[: len(states)]
        for stack, value in zip(made, outputs[len(states) :], strict=True):
            stack.append(value)
    stacked = [
        _stack(graph, node, values[:: -1 if backwards else 1], axis, axes)
        for values, axis, backwards in zip(made, out_of, outwards, strict=True)
    ]
    return [*states, *stacked]


def _axes(graph: ir.Graph, name: str, axes: Iterable[int]) -> Mapping[int, ir.Value]:
    """Each axis as a constant of the graph."""
    return {i: initializer(graph, f"{name}.axis_{i}", integers(i)) for i in sorted({*axes})}


def _slices(
    graph: ir.Graph,
    node: ir.Node,
    x: ir.Value,
    axis: int,
    axes: Mapping[int, ir.Value],
    count: int,
) -> list[ir.Value]:
    """x along an axis, which its slices lack."""
    parts = [x]
    if count > 1:
        split = ir.node("Split", [x], {"axis": axis, "num_outputs": count}, num_outputs=count)
        graph.insert_before(node, split)
        parts = list(split.outputs)
    squeezed = [ir.node("Squeeze", [part, axes[axis]]) for part in parts]
    graph.insert_before(node, squeezed)
    sizes = dims(x)
    del sizes[axis]
    for each in squeezed:
        each.outputs[0].type, each.outputs[0].shape = x.type, ir.Shape(sizes)
    return [each.outputs[0] for each in squeezed]


def _rounds(node: ir.Node, body: ir.Graph, opset: int) -> int | None:
    """How many rounds a `Loop` has, or None where that is not known before it runs, or too many to
    write out.

    Raises:
        SourceError: it does not end.
    """
    most, first = (None if x is None else _known(x, opset) for x in node.inputs[:2])
    if (most is None) != (node.inputs[0] is None) or (first is None) != (node.inputs[1] is None):
        return None
    count, going = 0, first is None or bool(first.item())
    limit = math.inf if most is None else int(most.item())
    number, condition = body.inputs[:2]
    while going and count < min(limit, ROUNDS):
        given = {number: np.array(count, np.int64), condition: np.array(True)}
        following = _known(body.outputs[0], opset, given)
        if following is None:
            return None
        count, going = count + 1, bool(following.item())
    if going and count < limit < math.inf:
        return None
    if going and count < limit:
        raise SourceError(f"Loop {node.name!r} does not end within {ROUNDS} rounds")
    return count


def _known(
    value: ir.Value, opset: int, given: Mapping[ir.Value, np.ndarray] | None = None
) -> np.ndarray | None:
    """A value that is computed from constants alone (and values `given`), or None.

    Sizes count as constants, and so do open ones as long as they make no difference.
    """
    first = evaluated(value, opset, 1, given)
    if first is None:
        return None
    for size in telling_sizes(value):
        other = evaluated(value, opset, size, given)
        if other is None or not np.array_equal(first, other):
            return None
    return first


def inline(
    graph: ir.Graph, node: ir.Node, body: ir.Graph, inputs: Sequence[ir.Value | None], label: str
) -> list[ir.Value | None]:
    """Put a copy of `body` before `node`; returns its outputs."""
    NODES.check(len(graph) + len(body))
    copy = body.clone(allow_outer_scope_values=True)
    given = dict(zip(copy.inputs, inputs, strict=True))
    outputs = [given.get(y, y) for y in copy.outputs]
    copy.outputs.clear()
    for inner, outer in given.items():
        for user, index in list(inner.uses()):
            user.replace_input_with(index, outer)
    _rename(copy.initializers.values(), f"{node.name}.{label}")
    for value in list(copy.initializers.values()):
        del copy.initializers[str(value.name)]
        graph.register_initializer(value)
    nodes = list(copy)
    for inner_node in nodes:
        _rename(inner_node.outputs, f"{node.name}.{label}")
        inner_node.name = f"{node.name}.{label}.{inner_node.name}"
    copy.remove(nodes)
    graph.insert_before(node, nodes)
    return outputs


def _rename(values: Iterable[ir.Value], prefix: str) -> None:
    for value in list(values):
        value.name = f"{prefix}.{value.name}"


def _stack(
    graph: ir.Graph,
    node: ir.Node,
    values: Sequence[ir.Value | None],
    axis: int,
    axes: Mapping[int, ir.Value],
) -> ir.Value:
    """[*shape] from each round → [rounds, *shape], or with that axis where it is asked for."""
    if not values:
        raise SourceError(f"{node.op_type} {node.name!r} has no rounds, yet stacks what they give")
    nodes = [ir.node("Unsqueeze", [value, axes[axis]]) for value in values]
    concat = ir.node("Concat", [n.outputs[0] for n in nodes], {"axis": axis})
    graph.insert_before(node, [*nodes, concat])
    return concat.outputs[0]


def _put(graph: ir.Graph, node: ir.Node, outputs: Sequence[ir.Value | None]) -> None:
    """Let `outputs` take the place of the node's own."""
    for old, new in zip(node.outputs, outputs, strict=True):
        if new is None:
            continue
        if old.is_graph_output():  # its name is the user's, and the new value may have other uses
            identity = ir.node("Identity", [new])
            graph.insert_before(node, identity)
            name, identity.outputs[0].shape = old.name, old.shape
            identity.outputs[0].type = old.type
            new, old.name = identity.outputs[0], f"{old.name}.before"
            new.name = name
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    graph.remove(node, safe=True)
