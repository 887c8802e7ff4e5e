"""`If` and `Loop` whose course is known before any image is seen, written out as plain nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxplain.errors import NoRuleError, SourceError
from onnxplain.export.autodiff import dependents, depends
from onnxplain.export.canonical.emit import integers
from onnxplain.export.canonical.evaluate import evaluated, telling_sizes
from onnxplain.export.canonical.opsets import opset_of
from onnxplain.initializers import initializer

_ROUNDS = 1000  # that a loop may have, to be written out


def unfold(model: ir.Model, simplify: Callable[[ir.Model], None]) -> None:
    """Write out the constant branches of `If` and the constant rounds of `Loop`, nested ones too.

    `simplify` folds constants and infers shapes; it is applied after each level of nesting.
    What depends on the image stays (`refuse_control_flow`).
    """
    while sum(_unfolded(model, node) for node in list(model.graph)):  # all of one level
        simplify(model)


def refuse_control_flow(graph: ir.Graph, image: ir.Value) -> None:
    """
    Raises:
        NoRuleError: the logits depend on the image through an `If`, `Loop` or `Scan`.
    """
    active = dependents(graph, [image])
    for node in graph:
        if node.op_type in ("If", "Loop", "Scan") and depends(node, active):
            what = {
                "If": "its condition",
                "Loop": "its number of rounds",
            }.get(node.op_type, "how it scans")
            raise NoRuleError(
                f"{node.op_type} {node.name!r}: {what} is not a constant of the network, and there "
                "is no rule for control flow at run time; export the network with it fixed (in "
                "PyTorch, torch.onnx.export(dynamo=True) traces a single course)"
            )


def _unfolded(model: ir.Model, node: ir.Node) -> bool:
    if node.op_type == "If":
        condition = _known(node.inputs[0], opset_of(model)) if node.inputs[0] else None
        if condition is None:
            return False
        branch = node.attributes["then_branch" if condition.item() else "else_branch"].as_graph()
        _put(model.graph, node, _inline(model.graph, node, branch, [], "branch"))
        return True
    return node.op_type == "Loop" and _unroll(model, node)


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
    axes = initializer(graph, f"{node.name}.axes", integers(0))
    for i in range(rounds):
        number = initializer(graph, f"{node.name}.round_{i}", np.array(i, np.int64))
        inputs = [number, going, *carried]
        _, *outputs = _inline(graph, node, body, inputs, f"round_{i}")
        carried, scans = outputs[: len(carried)], outputs[len(carried) :]
        for stack, value in zip(scanned, scans, strict=True):
            stack.append(value)
    _put(graph, node, [*carried, *(_stack(graph, node, values, axes) for values in scanned)])
    return True


def _rounds(node: ir.Node, body: ir.Graph, opset: int) -> int | None:
    """How many rounds a `Loop` has, or None where that is not known before it runs.

    Raises:
        SourceError: there are too many to write out.
    """
    most, first = (None if x is None else _known(x, opset) for x in node.inputs[:2])
    if (most is None) != (node.inputs[0] is None) or (first is None) != (node.inputs[1] is None):
        return None
    count, going = 0, first is None or bool(first.item())
    limit = _ROUNDS if most is None else int(most.item())
    number, condition = body.inputs[:2]
    while going and count < min(limit, _ROUNDS):
        given = {number: np.array(count, np.int64), condition: np.array(True)}
        following = _known(body.outputs[0], opset, given)
        if following is None:
            return None
        count, going = count + 1, bool(following.item())
    if going and count == _ROUNDS:
        raise SourceError(
            f"Loop {node.name!r} does not end within {_ROUNDS} rounds, too many to unroll"
        )
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


def _inline(
    graph: ir.Graph, node: ir.Node, body: ir.Graph, inputs: Sequence[ir.Value | None], label: str
) -> list[ir.Value | None]:
    """Put a copy of `body` before `node`; returns its outputs."""
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
    graph: ir.Graph, node: ir.Node, values: Sequence[ir.Value | None], axes: ir.Value
) -> ir.Value:
    """[*shape] from each round → [rounds, *shape]."""
    if not values:
        raise SourceError(f"Loop {node.name!r} has no rounds, yet stacks what they give")
    nodes = [ir.node("Unsqueeze", [value, axes]) for value in values]
    concat = ir.node("Concat", [n.outputs[0] for n in nodes], {"axis": 0})
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
