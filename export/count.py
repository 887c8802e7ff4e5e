"""Multiply-adds of a graph, the measure against which an explanation's cost is counted."""

from __future__ import annotations

import math
from collections.abc import Iterable

import onnx_ir as ir

from onnxplain.export.autodiff import Node
from onnxplain.export.tensors import attribute
from onnxplain.export.vjps.einsum import parse, sizes


def multiply_adds(nodes: Iterable[Node]) -> int:
    """Multiply-adds per image of the matrix products and convolutions, an open batch taken as 1."""
    return sum(_count(node) for node in nodes)


def _count(node: Node) -> int:
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum"):
        return 0
    if node.op_type == "Einsum":
        return _einsum(node)
    x, w, y = node.inputs[0], node.inputs[1], node.outputs[0]
    if x is None or w is None or x.shape is None or w.shape is None or y.shape is None:
        return 0
    if node.op_type == "Conv":  # every output element: one product per weight of its filter
        return _elements(y) * math.prod(_sizes(w)[1:])
    if node.op_type == "ConvTranspose":  # every input element: one product per weight of its filter
        return _elements(x) * math.prod(_sizes(w)[1:])
    transposed = node.op_type == "Gemm" and attribute(node, "transA", 0)
    return _elements(y) * _sizes(x)[-2 if transposed else -1]


def _einsum(node: Node) -> int:
    """One product for each value of all letters; none where there is but one operand."""
    if len(node.inputs) == 1 or any(x is None or x.shape is None for x in node.inputs):
        return 0
    letters = sizes(node.inputs, parse(node)[0])
    return math.prod(size if isinstance(size, int) else 1 for size in letters.values())


def _elements(value: ir.Value) -> int:
    return math.prod(_sizes(value))


def _sizes(value: ir.Value) -> list[int]:
    return [size if isinstance(size, int) else 1 for size in value.shape or ()]
