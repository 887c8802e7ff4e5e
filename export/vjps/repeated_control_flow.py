"""Control flow for several targets at once: what depends on the target has the axis K within too.

All targets take one course: a condition or a number of rounds that the target decides has no form.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.errors import SourceError
from onnxplain.export.autodiff import Node, dependents
from onnxplain.export.operators import Inputs, Outputs
from onnxplain.export.subgraphs import alike, captured, compute_again, new_body, put_out
from onnxplain.export.tensors import attribute, dims
from onnxplain.export.vmap import repeated, vmap


def repeated_if(
    op: OpBuilder, node: Node, inputs: Inputs, mapped: set[int], K: ir.Value
) -> Outputs:
    if 0 in mapped:
        raise _by_target(node)
    around = _around(node, inputs, mapped)
    branches = {}
    for name in ("then_branch", "else_branch"):
        inner, branch = new_body(op, f"{node.name}.{name}")
        body = node.attributes[name].as_graph()
        put_out(inner, _repeated_body(inner, body, [], around, K))
        branches[name] = branch
    made = op.builder.call_op("If", inputs[:1], branches, outputs=len(node.outputs))
    outputs = [made] if isinstance(made, ir.Value) else list(made)
    for x, y in zip(node.outputs, outputs, strict=True):
        y.type, y.shape = x.type, None if x.shape is None else ir.Shape([None, *x.shape])
    return outputs


def repeated_scan(
    op: OpBuilder, node: Node, inputs: Inputs, mapped: set[int], K: ir.Value
) -> Outputs:
    """The axis K is the first of a stack, as it is of a part of it."""
    settings: dict[str, Any] = {
        name: each.value for name, each in node.attributes.items() if name != "body"
    }
    count = _count(node)
    read, written = len(node.inputs) - count, len(node.outputs) - count
    axes = node.attributes.get_ints("scan_input_axes", [0] * read)
    settings["scan_input_axes"] = [
        axis + (count + i in mapped and axis >= 0) for i, axis in enumerate(axes)
    ]
    if written:
        axes = node.attributes.get_ints("scan_output_axes", [0] * written)
        settings["scan_output_axes"] = [axis + (axis >= 0) for axis in axes]
    return _rounds(op, node, inputs, mapped, K, 0, settings)


def repeated_loop(
    op: OpBuilder, node: Node, inputs: Inputs, mapped: set[int], K: ir.Value
) -> Outputs:
    """Its stacks have the rounds first, and K behind them."""
    if not mapped.isdisjoint((0, 1)):
        raise _by_target(node)
    count, outputs = _count(node), _rounds(op, node, inputs, mapped, K, 2, {})
    for i, y in enumerate(node.outputs[count:], count):
        rounds, *sizes = dims(y)
        outputs[i].shape = ir.Shape([rounds, None, *sizes])
        outputs[i] = op.Transpose(outputs[i], perm=[1, 0, *range(2, 2 + len(sizes))])
    return outputs


def _rounds(
    op: OpBuilder,
    node: Node,
    inputs: Inputs,
    mapped: set[int],
    K: ir.Value,
    first: int,
    settings: Mapping[str, Any],
) -> list[ir.Value]:
    """A Loop or Scan on `inputs`, whose states are those from `first` on; stacks have the axis K,
    and states that have it after any round."""
    body = node.attributes["body"].as_graph()
    lead = len(body.outputs) - len(node.outputs)
    around = _around(node, inputs, mapped)
    several = {x for i, x in enumerate(body.inputs) if i in mapped}
    states = _count(node)
    ends = dict(zip(body.inputs[first : first + states], body.outputs[lead:], strict=False))
    while True:
        found = dependents(body, {*several, *around})
        if not (more := {s for s, end in ends.items() if end in found} - several):
            break
        several |= more
    if any(y in found for y in body.outputs[:lead]):
        raise _by_target(node)

    inner, copy = new_body(op, f"{node.name}.repeated")
    seeds, given, starts = dict(around), [], list(inputs[: len(node.inputs)])
    for i, x in enumerate(body.inputs):
        part = alike(ir.Value(name=f"{copy.name}.{x.name}"), x)
        copy.inputs.append(part)
        if x not in several:
            given.append(part)
            continue
        part.shape = None if x.shape is None else ir.Shape([None, *x.shape])
        one = alike(inner.Squeeze(inner.Slice(part, [0], [1], [0]), [0]), x)
        seeds[one] = part
        given.append(one)
        if i not in mapped:
            starts[i] = repeated(op, _present(starts[i]), K)
    once = {i + lead for i, s in enumerate(ends) if s not in several} | set(range(lead))
    put_out(inner, _repeated_body(inner, body, given, seeds, K, once))
    made = op.builder.call_op(
        node.op_type, starts, {**settings, "body": copy}, outputs=len(node.outputs)
    )
    outputs = [made] if isinstance(made, ir.Value) else list(made)
    for i, (x, y) in enumerate(zip(node.outputs, outputs, strict=True)):
        y.type, y.shape = x.type, None if x.shape is None else ir.Shape([None, *x.shape])
        if i + lead in once:
            outputs[i] = repeated(op, alike(y, x), K)
    return outputs


def _count(node: Node) -> int:
    """How many states go from round to round."""
    if node.op_type == "Loop":
        return len(node.inputs) - 2
    return len(node.inputs) - attribute(node, "num_scan_inputs", 1)


def _repeated_body(
    op: OpBuilder,
    body: ir.Graph,
    given: Sequence[ir.Value],
    seeds: Mapping[ir.Value, ir.Value],
    K: ir.Value,
    once: Collection[int] = (),
) -> list[ir.Value]:
    """The outputs of a body with the axis K, but for those `once`."""
    nodes, outputs = compute_again(op, body, given)
    mapped = vmap(op, nodes, seeds, K)
    return [
        y if i in once else mapped[y] if y in mapped else repeated(op, y, K)
        for i, y in enumerate(outputs)
    ]


def _around(node: Node, inputs: Inputs, mapped: set[int]) -> dict[ir.Value, ir.Value]:
    """What the bodies read from around them that has the axis K → the same with it."""
    read, at = captured(node), len(node.inputs)
    return {x: _present(inputs[at + i]) for i, x in enumerate(read) if at + i in mapped}


def _present(value: ir.Value | None) -> ir.Value:
    assert value is not None
    return value


def _by_target(node: Node) -> SourceError:
    return SourceError(
        f"several targets: each would decide {node.op_type} {node.name!r} by itself; export with "
        "one target"
    )
