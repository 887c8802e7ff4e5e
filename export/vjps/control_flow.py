"""Control flow that the data decides: the adjoint of an `If` is an `If`, that of a `Scan` a `Scan`
the other way around, that of a `Loop` a `Loop` of as many rounds.

A branch or a round b is computed again where bᵀ(g) is, its vector-Jacobian product at what it was
given. What a round begins with is read from a tape: the forward pass stacks it up, where it is
needed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.errors import NoRuleError
from onnxplain.export.autodiff import Cotangents, Node, Rule, dependents, swept
from onnxplain.export.operators import register_vjp
from onnxplain.export.subgraphs import alike, captured, compute_again, new_body, operands, put_out
from onnxplain.export.tensors import attribute, zeros_like
from onnxplain.export.vjps.repeated_control_flow import repeated_if, repeated_loop, repeated_scan

Rules = Mapping[str, Rule]
Active = Collection[ir.Value | None]
Maybe = Sequence[ir.Value | None]


@register_vjp("If", batching=repeated_if)
def if_(
    op: OpBuilder, node: Node, *gs: ir.Value | None, rules: Rules, active: Active
) -> Cotangents:
    """y = c ? a(x) : b(x), so g_x = c ? aᵀ(g) : bᵀ(g): 0 from a branch that does not read x."""
    read = captured(node)
    wanted = [x for x in read if x in active and _is_float(x)]
    if not wanted:
        return [None] * len(operands(node))
    branches = {}
    for name in ("then_branch", "else_branch"):
        branch = node.attributes[name].as_graph()
        inner, body = new_body(op, f"{node.name}.{name}")
        arriving = [
            None if g is None else alike(inner.Identity(g), y)
            for g, y in zip(gs, branch.outputs, strict=True)
        ]
        put_out(inner, _pulled_back(inner, branch, [], arriving, wanted, rules))
        branches[name] = body
    found = dict(zip(wanted, _call(op, "If", node.inputs, branches, wanted), strict=True))
    return [None, *(found.get(x) for x in read)]


@register_vjp("Scan", batching=repeated_scan)
def scan(
    op: OpBuilder, node: Node, *gs: ir.Value | None, rules: Rules, active: Active
) -> Cotangents:
    """s', y = b(s, x, w) in each round, so g_s, g_x, g_w = bᵀ(g_s', g_y) from the last round to the
    first, and Σ g_w."""
    count = len(node.inputs) - attribute(node, "num_scan_inputs", 1)
    rounds = _Rounds(op, node, active, first=0, count=count)
    xs, slices = node.inputs[count:], rounds.body.inputs[count:]
    by = [i for i, x in enumerate(xs) if x in active and _is_float(x)]
    if not (rounds.carried or rounds.added or by):
        return [None] * len(operands(node))
    axes, ways = _ends_of(node, "input", len(xs))
    out_axes, out_ways = _ends_of(node, "output", len(gs) - count)

    given = [rounds.take(s, x, a, 1 - w) for x, s, a, w in zip(xs, slices, axes, ways, strict=True)]
    arriving = [
        None if g is None else rounds.take(y, g, a, 1 - w)
        for g, y, a, w in zip(gs[count:], rounds.stacked, out_axes, out_ways, strict=True)
    ]
    rounds.sweep([*rounds.begin, *given], arriving, [given[i] for i in by], rules)
    scanned = [each for each in rounds.taken if each.stack is not None]
    taken = rounds.taped() or scanned[:1]  # which says how many rounds there are
    rounds.adjoint.inputs.extend(each.part for each in taken)
    settings = {
        "num_scan_inputs": len(taken),
        "scan_input_axes": [each.axis for each in taken],
        "scan_input_directions": [each.way for each in taken],
    }
    if by:
        settings["scan_output_axes"] = [axes[i] for i in by]
        settings["scan_output_directions"] = [1 - ways[i] for i in by]
    inputs = [*rounds.start(gs), *(each.stack for each in taken)]
    return rounds.call("Scan", inputs, [count + i for i in by], settings)


@register_vjp("Loop", batching=repeated_loop)
def loop(
    op: OpBuilder, node: Node, *gs: ir.Value | None, rules: Rules, active: Active
) -> Cotangents:
    """As of a `Scan` of nothing; round r is gone back through in round T - 1 - r."""
    count = len(node.inputs) - 2
    rounds = _Rounds(op, node, active, first=2, count=count)
    if not (rounds.carried or rounds.added):
        return [None] * len(operands(node))
    number = rounds.body.inputs[0]
    inner, adjoint = rounds.inner, rounds.adjoint
    both = zip(gs[count:], rounds.stacked, strict=True)
    arriving = [None if g is None else rounds.take(y, g) for g, y in both]
    yes = inner.Constant(value=ir.tensor(np.array(True)))
    rounds.sweep([rounds.take(number), yes, *rounds.begin], arriving, [], rules)
    total = op.Size(rounds.tape(number))
    back = ir.val(f"{node.name}.number", ir.DataType.INT64, [])
    going = ir.val(f"{node.name}.going", ir.DataType.BOOL, [])
    adjoint.inputs[:] = [back, going, *adjoint.inputs]
    at = inner.Sub(op.Sub(total, 1), back)
    for each in rounds.taped():
        part = alike(inner.Gather(each.stack, at, axis=0), each.part)
        ir.convenience.replace_all_uses_with(each.part, part)
    adjoint.outputs.insert(0, inner.Identity(going))
    adjoint.sort()
    return rounds.call("Loop", [total, True, *rounds.start(gs)], [], {})


@dataclass
class _Taken:
    """What a round of an adjoint takes of a stack: the part along an axis, from the end if `way` is
    1. Without a stack, it is what the round began with."""

    part: ir.Value
    like: ir.Value
    stack: ir.Value | None
    axis: int
    way: int


class _Rounds:
    """A `Loop` or `Scan`, and the body of its adjoint as it is made.

    Attributes:
        stacked: what each round puts onto stacks.
        begin: what the round that is gone back through began with, in the adjoint.
        carried: the places of those states whose cotangents go from round to round.
        added: what is read from around the body, whose cotangents are summed.

    Raises:
        NoRuleError: a state may have another shape in each round.
    """

    def __init__(self, op: OpBuilder, node: Node, active: Active, first: int, count: int) -> None:
        self.op, self.node, self.count = op, node, count
        self.body = node.attributes["body"].as_graph()
        self.first, self.lead = first, len(self.body.outputs) - len(node.outputs)
        self.states = list(self.body.inputs[first : first + count])
        self.stacked = list(self.body.outputs[self.lead + count :])
        for x, state in zip(node.inputs[first:], self.states, strict=False):
            if _may_differ(x.shape, state.shape):
                raise NoRuleError(
                    f"no rule for {node.op_type} {node.name!r}, whose {state.name!r}, {x.shape} at "
                    "first, may have another shape in each round"
                )
        self.added = [x for x in captured(node) if x in active and _is_float(x)]
        self.carried = self._carried(active)
        self.inner, self.adjoint = new_body(op, f"{node.name}.back")
        self.gs = {i: self._input(self.states[i], "cotangent") for i in self.carried}
        self.sums = [self._input(x, "sum") for x in self.added]
        self.taken: list[_Taken] = []
        self.begin = [self.take(s) for s in self.states]

    def _carried(self, active: Active) -> list[int]:
        """The states that depend on an active value, be it after many rounds."""
        both = zip(self.node.inputs, self.body.inputs, strict=True)
        roots = {inner for x, inner in both if x in active} | set(self.added)
        ends = self.body.outputs[self.lead : self.lead + self.count]
        while True:
            found = dependents(self.body, roots)
            more = {s for s, end in zip(self.states, ends, strict=True) if end in found} - roots
            if not more:
                return [i for i, s in enumerate(self.states) if s in roots and _is_float(s)]
            roots |= more

    def _input(self, like: ir.Value, what: str) -> ir.Value:
        value = alike(ir.Value(name=f"{self.node.name}.{what}.{like.name}"), like)
        self.adjoint.inputs.append(value)
        return value

    def take(
        self, like: ir.Value, stack: ir.Value | None = None, axis: int = 0, way: int = 1
    ) -> ir.Value:
        """A part of a stack, of the shape of `like`."""
        part = alike(ir.Value(name=f"{self.node.name}.part_{len(self.taken)}"), like)
        self.taken.append(_Taken(part, like, stack, axis, way))
        return part

    def sweep(self, given: Maybe, arriving: Maybe, by: Sequence[ir.Value], rules: Rules) -> None:
        """Go back through a round: from the cotangents of all that it gives to those of the states,
        of what is added, and of parts `by` which it took."""
        gs = [*[None] * self.lead, *map(self.gs.get, range(self.count)), *arriving]
        wanted = [*(self.begin[i] for i in self.carried), *self.added, *by]
        found = _pulled_back(self.inner, self.body, given, gs, wanted, rules)
        at = len(self.carried)
        for i, total in enumerate(self.sums):
            found[at + i] = self.inner.Add(total, found[at + i])
        put_out(self.inner, found)

    def taped(self) -> list[_Taken]:
        """The parts that are needed, those that a round began with from their tapes."""
        used = [each for each in self.taken if each.part.uses()]
        for each in used:
            if each.stack is None:
                each.stack = self.tape(each.like)
        return used

    def tape(self, state: ir.Value) -> ir.Value:
        """What every round began with, stacked up by the node."""
        node, body = self.node, self.body
        axes, ways = _ends_of(node, "output", len(node.outputs) - self.count)
        outputs = body.outputs[self.lead + self.count :]
        stacks = node.outputs[self.count :]
        for y, stack, axis, way in zip(outputs, stacks, axes, ways, strict=True):
            copy = y.producer()
            copied = copy is not None and copy.op_type == "Identity" and copy.inputs[0] is state
            if copied and axis == way == 0 and stack.name:
                return stack
        copy = ir.node("Identity", [state])
        body.append(copy)
        body.outputs.append(alike(copy.outputs[0], state))
        copy.outputs[0].name = f"{state.name}.taped"
        node.resize_outputs(len(node.outputs) + 1)
        for of, values in (("axes", axes), ("directions", ways)):
            if f"scan_output_{of}" in node.attributes:
                node.attributes.add(ir.AttrInt64s(f"scan_output_{of}", [*values, 0]))
        stack = node.outputs[-1]
        stack.name, stack.type = f"{node.name}.tape.{state.name}", state.type
        stack.shape = None if state.shape is None else ir.Shape([None, *state.shape])
        return stack

    def start(self, gs: Maybe) -> list[ir.Value]:
        """The cotangents of the last states, and sums of nothing."""
        starts = [(self.node.inputs[self.first + i], gs[i]) for i in self.carried]
        last = [zeros_like(self.op, x) if g is None else g for x, g in starts]
        return [*last, *(zeros_like(self.op, x) for x in self.added)]

    def call(
        self, op_type: str, inputs: Sequence[Any], by: Sequence[int], settings: Any
    ) -> Cotangents:
        """The adjoint's results, each in the place of its operand: a value may stand in several.
        `by` are the places of stacks."""
        around = len(self.node.inputs)
        read = {x: around + i for i, x in enumerate(captured(self.node))}
        states = (self.first + i for i in self.carried)
        places = [*states, *(read[x] for x in self.added), *by]
        given = operands(self.node)
        like = [x for i in places if (x := given[i]) is not None]
        made = _call(self.op, op_type, inputs, {"body": self.adjoint, **settings}, like)
        found = dict(zip(places, made, strict=True))
        return [found.get(i) for i in range(len(given))]


def _may_differ(first: ir.Shape | None, later: ir.Shape | None) -> bool:
    if first is None or later is None or len(first) != len(later):
        return first is not None
    pairs = zip(first, later, strict=True)
    return any(m != n for m, n in pairs if isinstance(m, int) or m.value is not None)


def _ends_of(node: Node, side: str, count: int) -> tuple[Sequence[int], Sequence[int]]:
    """The axes and the directions of a Scan's inputs or outputs; a Loop's are 0."""
    axes = node.attributes.get_ints(f"scan_{side}_axes", [0] * count)
    return axes, node.attributes.get_ints(f"scan_{side}_directions", [0] * count)


def _pulled_back(
    op: OpBuilder,
    body: ir.Graph,
    given: Maybe,
    gs: Maybe,
    wanted: Sequence[ir.Value],
    rules: Rules,
) -> list[ir.Value]:
    """The cotangents of `wanted`, given those of a body's outputs, where it is computed again of
    what it is `given`; zeros where none arrives."""
    nodes, outputs = compute_again(op, body, given)
    seeds: dict[ir.Value, ir.Value] = {}
    for y, g in zip(outputs, [*gs, *[None] * (len(outputs) - len(gs))], strict=True):
        if g is not None and _is_float(y):
            seeds[y] = op.Add(seeds[y], g) if y in seeds else g
    found = swept(op, seeds, wanted, rules, nodes)
    return [zeros_like(op, x) if gx is None else gx for x, gx in zip(wanted, found, strict=True)]


def _call(
    op: OpBuilder,
    op_type: str,
    inputs: Sequence[Any],
    attributes: Mapping[str, Any],
    like: Sequence[ir.Value],
) -> list[ir.Value]:
    made = op.builder.call_op(op_type, inputs, attributes, outputs=len(like))
    values = [made] if isinstance(made, ir.Value) else list(made)
    return [alike(value, x) for value, x in zip(values, like, strict=True)]


def _is_float(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.is_floating_point()
