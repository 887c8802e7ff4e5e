"""What a value of the forward graph is: constant, a weight of others, known not to be negative.

Each is answered by walking up from the value, through what made it.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from onnxplain.export.autodiff import Node, operator_name
from onnxplain.export.canonical.patterns.weighting import LINEAR, PRODUCTS, SUMS

WEIGHTS = frozenset(
    ["onnxplain::AttentionWeights", "onnxplain::SigmoidGate", "onnxplain::HardSigmoidGate"]
)
"""What only ever multiplies values that depend on the image, as the canonical forward names it."""

POSITIVE = frozenset(
    [
        *WEIGHTS,
        *("Relu", "Sigmoid", "HardSigmoid", "Softplus", "Softmax", "Exp", "Abs", "Sqrt"),
        *("ReduceL1", "ReduceL2", "ReduceSumSquare"),
    ]
)
"""Operators whose result is never negative."""

MONOTONE = frozenset(
    [
        *("Identity", "Cast", "CastLike", "Dropout", "Reshape", "Flatten", "Squeeze", "Unsqueeze"),
        *("Transpose", "Expand", "Tile", "Slice", "Split", "Gather", "GatherElements", "GatherND"),
        *("Trilu", "DepthToSpace", "SpaceToDepth"),
        *("MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool"),
        *("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin"),
    ]
)
"""Operators whose result is not negative where their first input is not."""

POSITIVE_TOGETHER = frozenset(["Concat", "Add", "Sum", "Mean", "Mul", "Min", "Max"])
"""Operators whose result is not negative where none of their inputs is."""


def varies(value: ir.Value | None) -> bool:
    """Whether a value depends on an input of the graph; its shape or dtype alone does not count."""
    waiting, seen = [value], set()
    while waiting:
        x = waiting.pop()
        if x is None or x in seen or x.is_initializer():
            continue
        node = x.producer()
        if node is None:
            return True
        seen.add(x)
        if node.op_type not in ("Shape", "Size"):
            waiting.extend(node.inputs[:1] if node.op_type == "CastLike" else node.inputs)
    return False


def varying(node: Node) -> list[int]:
    """The indices of a node's inputs that depend on an input of the graph."""
    return [i for i, x in enumerate(node.inputs) if varies(x)]


def is_weight(value: ir.Value | None) -> bool:
    """Whether a value is attention's weights or a gate, or linear in such and in nothing else."""
    waiting = [value]
    while waiting:
        x = waiting.pop()
        node = None if x is None else x.producer()
        if node is None:
            return False
        if operator_name(node) in WEIGHTS:
            continue
        sources = [y for y in node.inputs if varies(y)]
        linear = node.op_type in SUMS | {"Concat", "Div"} or (
            node.op_type in LINEAR | PRODUCTS and len(sources) == 1
        )
        if not linear or not sources:
            return False
        waiting.extend(sources)
    return True


def non_negative(value: ir.Value | None) -> bool:
    """Whether no element of a value can be negative, as far as the graph tells."""
    waiting, seen = [value], set()
    while waiting:
        x = waiting.pop()
        if x is None or x in seen:
            continue
        seen.add(x)
        tensor = ir.convenience.get_const_tensor(x)
        if tensor is not None:
            if (tensor.numpy() < 0).any():
                return False
            continue
        node = x.producer()
        if node is None:
            return False
        required = _required(node)
        if required is None:
            return False
        waiting.extend(required)
    return True


def _required(node: ir.Node) -> Iterable[ir.Value | None] | None:
    """Of which inputs of a node must none be negative that its result is not; None: it may be."""
    name = operator_name(node)
    if name in POSITIVE:
        return ()
    if name in MONOTONE:
        return node.inputs[:1]
    if name in POSITIVE_TOGETHER:
        return node.inputs
    if name == "Clip" and len(node.inputs) > 1:
        return node.inputs[1:2] if node.inputs[1] is not None else node.inputs[:1]
    if name == "Pad":
        return [node.inputs[0], *node.inputs[2:3]]
    return None
