"""Replace nodes of the forward graph by others, and make constants for these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from onnxplain.errors import SourceError
from onnxplain.export.budget import NODES
from onnxplain.export.tensors import size_of

Operand: TypeAlias = ir.Value | np.ndarray | None
Emitted: TypeAlias = ir.Value | Sequence[ir.Value | None]


class Emitter:
    """`emit("Mul", a, b)` makes a node and gives its output; arrays become constants.

    Those of floats have the type of what they meet, float32 unless it is to be float64.
    """

    def __init__(self, double: bool = False) -> None:
        self._tape, self._floats = Tape(), np.dtype(np.float64 if double else np.float32)

    @property
    def nodes(self) -> Sequence[ir.Node]:
        return self._tape.nodes

    def __call__(
        self, op_type: str, *inputs: Operand, **attributes: int | float | str | Sequence[int]
    ) -> ir.Value:
        operands = [*inputs]
        if op_type == "Resize":  # the scales are float32 whatever is resized
            operands = [self._made(x) if isinstance(x, np.ndarray) else x for x in inputs]
        return self._tape.op(op_type, self._operands(operands), attributes)

    def many(
        self, op_type: str, count: int, *inputs: Operand, **attributes: int
    ) -> Sequence[ir.Value]:
        """The outputs of a node that has several."""
        operands = self._operands(inputs)
        return self._tape.op_multi_out(op_type, operands, attributes, num_outputs=count)

    def _operands(self, inputs: Sequence[Operand]) -> list[ir.Value | None]:
        return [self.constant(x) if isinstance(x, np.ndarray) else x for x in inputs]

    def constant(self, array: np.ndarray) -> ir.Value:
        return self._made(array.astype(self._floats) if array.dtype.kind == "f" else array)

    def _made(self, array: np.ndarray) -> ir.Value:
        return self._tape.op("Constant", [], {"value": ir.tensor(array)})


def called(node: ir.Node) -> str:
    """A node in words: its name, or one of the values that it gives."""
    return repr(node.name) if node.name else f"(which gives {node.outputs[0].name!r})"


def integers(*numbers: int) -> np.ndarray:
    """A vector of int64, as shapes and axes are given."""
    return np.array(numbers, np.int64)


ROUNDS = 1000
"""The most rounds, or steps, that are written out."""


def check_rounds(node: ir.Node, count: int) -> None:
    """
    Raises:
        SourceError: there are too many to write out.
    """
    if count > ROUNDS:
        raise SourceError(
            f"{node.op_type} {node.name!r} has {count} rounds, too many to unroll: {ROUNDS} at most"
        )


def split(emit: Emitter, x: ir.Value, axis: int) -> list[ir.Value]:
    """The slices of x along an axis of a known size, which each of them keeps."""
    count = size_of(x, axis)
    if count == 1:
        return [x]
    return list(emit.many("Split", count, x, axis=axis, num_outputs=count))


def replace(node: ir.Node, form: Callable[[Emitter, ir.Node], Emitted]) -> Sequence[ir.Node]:
    """Replace `node` by the nodes that `form(emit, node)` emits, which are returned.

    `form` returns the new outputs in the order of the old ones. An old output that it leaves out at
    the end, or gives as `None`, must have no uses; one without a name has none.
    """
    emit = Emitter(any(x is not None and x.dtype == ir.DataType.DOUBLE for x in node.inputs))
    emitted = form(emit, node)
    NODES.check(len(node.graph or ()) + len(emit.nodes))
    outputs = [emitted] if isinstance(emitted, ir.Value) else emitted
    both = zip(node.outputs, outputs, strict=False)
    pairs = [(old, new) for old, new in both if new is not None and old.name]
    assert node.graph is not None
    ir.convenience.replace_nodes_and_values(
        node.graph,
        node,
        [node],
        emit.nodes,
        [old for old, _ in pairs],
        [new for _, new in pairs],
    )
    return emit.nodes
