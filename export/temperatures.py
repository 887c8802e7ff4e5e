"""The division by a temperature, done once for a whole network instead of at every gate.

A gate reads z / T. Where a network is positively homogeneous, as convolutions, ReLUs, pools and
sums are, z / T is what it computes at that place from the image / T and its biases / T, with the
weights as they are. So values carry the factor 1/T there, the gates read them as they are, and the
product at each of them is gone: a pass over memory on a processor, a kernel to launch on a GPU.

Values that only carry the factor together, joined by homogeneous operators, are a *group*. What is
linear by constant weights stands between groups: the weights, or a Gemm's α, take up a factor that
the result has and the operand has not, or the other way round. A group carries the factor if more
gates read it than there are readers that need a value of it as it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.autodiff import dependents
from onnxplain.export.operators import Axes, Kind, Linear, row_of
from onnxplain.export.subgraphs import operands
from onnxplain.export.tensors import array_of, constant, number_of

LARGEST = 4.0
"""The factor that values may carry, or its inverse: float16, which a file may be loaded in, ends at
65,504."""


@dataclass
class Groups:
    """Values that carry the factor together, by union and find; `carried` of each node.

    What a node carries depends on what is fixed by then, so it is decided once, as the groups grow.
    """

    parents: dict[ir.Value, ir.Value] = field(default_factory=dict)
    fixed: set[ir.Value] = field(default_factory=set)
    carried: dict[ir.Node, list[int]] = field(default_factory=dict)

    def of(self, value: Any) -> ir.Value:
        """The value that stands for the group."""
        while (parent := self.parents.get(value, value)) is not value:
            value = parent
        return value

    def join(self, values: Sequence[ir.Value]) -> None:
        for value in values[1:]:
            first, other = self.of(values[0]), self.of(value)
            if other is not first:
                self.parents[other] = first
                if other in self.fixed:
                    self.fixed.add(first)

    def fix(self, values: Sequence[ir.Value]) -> None:
        """These carry none."""
        self.fixed.update(map(self.of, values))


def fold_temperatures(op: OpBuilder, image: ir.Value, outputs: Sequence[ir.Value]) -> None:
    """Let the forward pass carry the factor that most gates multiply by, where that pays.

    The graph has to be sorted again, and cleaned of what nothing needs any more.
    """
    if image.dtype not in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
        return  # in halves, weights that take up a factor are rounded once more
    forward = Forward(op.builder.graph, image, outputs)
    factors = Counter(k for value in forward.values for k in {k for _, k in forward.gates(value)})
    ((factor, _),) = factors.most_common(1) or [(0.0, 0)]
    if not 1 / LARGEST <= factor <= LARGEST or factor == 1.0:
        return
    groups = grouped(forward)
    carrying = carriers(forward, groups, factor)
    if carrying:
        _Folding(op, forward, groups, carrying, factor).run()


class Forward:
    """The nodes by which the outputs depend on the image, and the values there."""

    def __init__(self, graph: ir.Graph, image: ir.Value, outputs: Sequence[ir.Value]) -> None:
        needed, waiting = set(), [output.producer() for output in outputs]
        while waiting:
            node = waiting.pop()
            if node is not None and node not in needed:
                needed.add(node)
                waiting.extend(x.producer() for x in operands(node) if x is not None)
        active = dependents(graph, [image])
        self.ends = (image, *outputs)
        self.nodes = [n for n in graph if n in needed and not active.isdisjoint(n.outputs)]
        results = [y for node in self.nodes for y in node.outputs if y.dtype == image.dtype]
        self.values = dict.fromkeys([image, *results])
        self._inside = set(self.nodes)

    def gates(self, value: ir.Value) -> Iterator[tuple[ir.Node, float]]:
        """The products of a value with a positive number behind the forward pass."""
        for node, index in value.uses():
            if node.op_type == "Mul" and node.graph is value.graph and node not in self._inside:
                number = number_of(node.inputs[1 - index])
                if number is not None and number > 0:
                    yield node, number

    def operand(self, node: ir.Node) -> ir.Value | None:
        """What a node is linear in, by constants; None where it is not."""
        row = row_of(node.op_type)
        product = row.kind is Kind.CONVOLUTION or row.kind is Kind.MATRIX_PRODUCT
        if node.domain or not product or row.axes is Axes.EINSUM:
            return None
        variable = [x for x in node.inputs if x in self.values]
        others = [x for x in node.inputs if x is not None and x not in self.values]
        alone = len(variable) == 1 and variable[0] in node.inputs[:2]
        return variable[0] if alone and all(map(_is_constant, others)) else None

    def readers(self, value: ir.Value, groups: Groups) -> Iterator[tuple[ir.Node, int]]:
        """The uses of a value that need it as it was."""
        gates = {node for node, _ in self.gates(value)}
        for node, index in value.uses():
            if _is_test(node, index):
                continue
            if node in self._inside:
                if value is not self.operand(node) and index not in groups.carried[node]:
                    yield node, index
            elif node not in gates and node.op_type != "Shape":
                yield node, index


def grouped(forward: Forward) -> Groups:
    """The groups; those fixed that begin or end where nothing takes up a factor."""
    groups = Groups()
    groups.fix(forward.ends)
    for node in forward.nodes:
        if forward.operand(node) is not None:
            continue
        groups.carried[node] = carried(forward, groups, node)
        together = [node.inputs[i] for i in groups.carried[node]]
        groups.join([x for x in [*together, *node.outputs] if x in forward.values])
        if not together:
            groups.fix(node.outputs)
    return groups


def carried(forward: Forward, groups: Groups, node: ir.Node) -> list[int]:
    """The inputs of a homogeneous node that carry the factor with its result; else none."""
    row = row_of(node.op_type)
    found = [i for i, x in enumerate(node.inputs) if i in row.homogeneous and x is not None]
    variable = [i for i in found if node.inputs[i] in forward.values]
    if row.linear is Linear.EACH:
        if len(variable) == 2:
            variable = [i for i in found if groups.of(node.inputs[i]) not in groups.fixed]
        other = next((x for i, x in enumerate(node.inputs) if i not in variable), None)
        known = _is_constant(other) or (
            other in forward.values and groups.of(other) in groups.fixed
        )
        return variable if len(variable) == 1 and known else []
    constants = all(_is_constant(node.inputs[i]) for i in found if i not in variable)
    return found if variable and constants else []


def carriers(forward: Forward, groups: Groups, factor: float) -> set[ir.Value]:
    """The groups that are to carry the factor, by the values that stand for them.

    Beside those that it pays for, those that it costs nothing, where most of what is linear
    beyond them carries it: fewer weights take up a factor then.
    """
    balance: Counter[ir.Value] = Counter()
    read: set[ir.Value] = set()
    for value in forward.values:
        group = groups.of(value)
        balance[group] += any(k == factor for _, k in forward.gates(value))
        if any(True for _ in forward.readers(value, groups)):
            balance[group] -= 1
            read.add(group)
    found = {group for group, gain in balance.items() if gain > 0} - groups.fixed
    beyond: Counter[ir.Value] = Counter()
    for node in forward.nodes:
        if (x := forward.operand(node)) is not None:
            ends = groups.of(x), groups.of(node.outputs[0])
            for group, other in (ends, ends[::-1]):
                beyond[group] += 1 if other in found else -1
    idle = {group for group in beyond if beyond[group] > 0} - groups.fixed - read
    return found | idle if found else set()


@dataclass(frozen=True)
class _Folding:
    """The rewriting itself."""

    op: OpBuilder
    forward: Forward
    groups: Groups
    carrying: set[ir.Value]
    factor: float

    def run(self) -> None:
        uses = [
            (value, list(self.forward.gates(value)), list(self.forward.readers(value, self.groups)))
            for value in self.forward.values
            if self._carries(value)
        ]
        tests = [use for value, _, _ in uses for use in value.uses() if _is_test(*use)]
        for node in self.forward.nodes:
            if (x := self.forward.operand(node)) is not None:
                self._linear(node, x)
            elif self._carries(node.outputs[0]):
                for index in self.groups.carried[node]:
                    self._times(node, index, self.factor)
        for node, index in tests:
            self._times(node, 1 - index, self.factor)
        for value, gates, readers in uses:
            for node, number in gates:
                if number == self.factor:
                    ir.convenience.replace_all_uses_with(node.outputs[0], value)
                else:
                    index = next(i for i, x in enumerate(node.inputs) if x is not value)
                    self._times(node, index, 1 / self.factor)
            if readers:
                before = self.op.Mul(value, 1 / self.factor)
                for node, index in readers:
                    node.replace_input_with(index, before)

    def _carries(self, value: ir.Value) -> bool:
        return self.groups.of(value) in self.carrying

    def _linear(self, node: ir.Node, x: ir.Value) -> None:
        """Of y = α A x + b, let α or A make up for what y carries and x does not; b as y."""
        ratio = self.factor ** (int(self._carries(node.outputs[0])) - int(self._carries(x)))
        at = node.inputs.index(x)
        if ratio != 1.0 and node.op_type == "Gemm":
            alpha = node.attributes.get_float("alpha", 1.0)
            node.attributes["alpha"] = ir.AttrFloat32("alpha", alpha * ratio)
        elif ratio != 1.0:
            node.replace_input_with(1 - at, self.op.Mul(node.inputs[1 - at], ratio))
        if self._carries(node.outputs[0]) and len(node.inputs) > 2:
            self._times(node, 2, self.factor)

    def _times(self, node: ir.Node, index: int, factor: float) -> None:
        """Multiply an input that is constant."""
        value = node.inputs[index]
        array = array_of(value)
        if value is not None and array is not None and array.any():
            node.replace_input_with(index, constant(self.op, array * factor, value))


def _is_test(node: ir.Node, index: int) -> bool:
    """Whether it compares with a constant, which then takes up the factor."""
    compares = row_of(node.op_type).kind is Kind.TEST and len(node.inputs) == 2
    return compares and _is_constant(node.inputs[1 - index])


def _is_constant(value: ir.Value | None) -> bool:
    return value is not None and ir.convenience.get_const_tensor(value) is not None
