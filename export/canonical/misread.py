"""Nodes whose sizes ONNX's shape inference reads otherwise than runtimes compute them, spelled so
that both agree; and what was inferred of them, inferred again."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from onnxplain.export.autodiff import active_within, operator_name
from onnxplain.export.budget import TIMES
from onnxplain.export.canonical.bodies import results
from onnxplain.export.canonical.pools import POOLS, spell_ceil_mode
from onnxplain.export.canonical.transposed import spell_same_transposed
from onnxplain.export.shapes import infer_node, infer_shapes, is_known, symbols
from onnxplain.export.subgraphs import bodies, operands

MISREAD = {**dict.fromkeys(POOLS, spell_ceil_mode), "ConvTranspose": spell_same_transposed}
"""Operator → what spells a node of it in place, and says whether another shape was inferred."""


def spell_misread(model: ir.Model) -> bool:
    """Spell them, in bodies too, wherever the sizes of their operands are known.

    Returns:
        Whether another shape was found anywhere.
    """
    if not any(node.op_type in MISREAD for node in model.graph.all_nodes()):
        return False
    corrected = Corrected(model)
    found = False
    for node in corrected.nodes():
        form = MISREAD.get(operator_name(node))
        if form is not None and form(node, corrected.sizes):
            corrected.add(node)
            found = True
    corrected.settle()
    return found


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
        self._fresh = False
        self._times = 0

    def nodes(self) -> Iterator[ir.Node]:
        """All nodes, each when the shapes of its operands are right: those of bodies before the one
        that has them."""
        yield from self._nodes(self._model.graph)

    def _nodes(self, graph: ir.Graph) -> Iterator[ir.Node]:
        for node in list(graph):
            inner = bodies(node)
            for body in inner:
                self._open_states(node, body)
                yield from self._nodes(body)
            if any(not self._following.isdisjoint(body.outputs) for body in inner):
                self._change(node, results(node))
            elif not inner and not self._following.isdisjoint(node.inputs):
                self.add(node)
            yield node

    def _open_states(self, node: ir.Node, body: ir.Graph) -> None:
        """What goes from round to round is inferred with the bodies, not here."""
        states = set(body.inputs) & (active_within(node, body, self._following) - self._following)
        for state in states:
            state.shape = None
        self._following |= states
        self._left |= bool(states)

    def add(self, node: ir.Node) -> None:
        """A node, put right, of whose results other shapes were found."""
        before = [y.shape for y in node.outputs]
        for y in node.outputs:
            y.shape = None
        infer_node(node, self._model.graph.opset_imports)
        after = [y.shape for y in node.outputs]
        for y, shape in zip(node.outputs, before, strict=True):
            y.shape = shape
        self._change(node, after)

    def _change(self, node: ir.Node, shapes: list[ir.Shape | None]) -> None:
        self._fresh = False
        for y, shape in zip(node.outputs, shapes, strict=True):
            elements = y.dtype == ir.DataType.INT64  # sizes, which other shapes follow from
            if elements or y.shape != shape:
                y.shape = shape
                self._following.add(y)
                self._left |= elements or not is_known(y, self._open)

    def sizes(self, value: ir.Value | None) -> list[int] | None:
        """Height and width of an operand [N, C, h, w], and the like; None where they are not known.

        Raises:
            SourceError: the whole graph was inferred too often.
        """
        assert value is not None
        if not self._fresh and (
            value.shape is None or (value in self._following and not is_known(value, self._open))
        ):
            self._infer()
        found = [] if value.shape is None else list(value.shape)[2:]
        numbers = [n for n in found if isinstance(n, int)]
        return numbers if numbers and len(numbers) == len(found) else None

    def settle(self) -> None:
        """Infer the shapes of what follows."""
        if self._left:
            self._infer()

    def _infer(self) -> None:
        self._times += 1
        TIMES.check(self._times)
        self._spread(self._model.graph)
        for stale in self._following:
            if stale is not None:
                stale.shape = None
        self._following.clear()
        self._left, self._fresh = False, True
        infer_shapes(self._model)

    def _spread(self, graph: ir.Graph) -> None:
        """All that follows counts as following."""
        for node in graph:
            for body in bodies(node):
                self._following |= active_within(node, body, self._following)
                self._spread(body)
                if not self._following.isdisjoint(body.outputs):
                    self._following.update(node.outputs)
            if not self._following.isdisjoint(operands(node)):
                self._following.update(node.outputs)
