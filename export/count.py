"""Multiply-adds of a graph, the measure against which an explanation's cost is counted."""

from __future__ import annotations

import math
from collections.abc import Iterable

import onnx_ir as ir

from onnxplain.contract.pixels import SEEN
from onnxplain.export.autodiff import Node, operator_name
from onnxplain.export.operators import Kind, row_of
from onnxplain.export.shapes import infer_shapes
from onnxplain.export.subgraphs import bodies
from onnxplain.export.tensors import USUAL, attribute, number_of, usual
from onnxplain.export.vjps.einsum import parse, sizes


def multiply_adds(nodes: Iterable[Node]) -> int:
    """Multiply-adds per image of the matrix products and convolutions, an open batch taken as 1, an
    image of any size as one of the usual size.

    Those of recurrent layers too. Of an `If` it is the branch that costs more; a body is run as
    often as its node tells, at most, and once where only the data does.
    """
    return sum(_count(node) for node in nodes)


def at_usual_size(model: ir.Model) -> ir.Graph:
    """The graph; that of images of any size with the sizes of the usual one, as inference follows
    it through what was emitted."""
    numbers = model.graph.meta.get(USUAL)
    if numbers is None:
        return model.graph
    copy = model.clone()
    made = [y for node in copy.graph for y in node.outputs]
    for seen in (y for y in made if y.name == SEEN):  # no inference follows a camera's sizes
        image = ir.Value(name=f"{SEEN}.usual", type=seen.type, shape=seen.shape)
        ir.convenience.replace_all_uses_with(seen, image)
        copy.graph.inputs.append(image)
    for x in copy.graph.inputs:
        sizes = (n if isinstance(n, int) else n.evaluate(numbers) for n in x.shape or ())
        x.shape = ir.Shape([n if isinstance(n, int) else 1 for n in sizes])
    for value in (*made, *copy.graph.outputs):
        value.shape = None
    infer_shapes(copy)
    return copy.graph


def _count(node: Node) -> int:
    if inner := bodies(node):
        return _rounds(node) * max(map(multiply_adds, inner))
    kind = row_of(operator_name(node)).kind
    if kind not in COUNTED or any(v.shape is None for v in _operands(node)):
        return 0
    if node.op_type == "Einsum":  # one product for each value of all letters
        letters = sizes(node.inputs, parse(node)[0])
        return math.prod(map(_size, letters.values())) if len(node.inputs) > 1 else 0
    x, w, *more = _operands(node)
    y = node.outputs[0]
    if kind is Kind.RECURRENT:  # every step of every image: one product per weight
        return math.prod(_sizes(x)[:2]) * (_elements(w) + _elements(more[0]))
    if node.op_type == "ConvTranspose":  # every input element: one product per weight of its filter
        return _elements(x) * math.prod(_sizes(w)[1:])
    if y.shape is None:
        return 0
    if node.op_type == "Conv":  # every output element: one product per weight of its filter
        return _elements(y) * math.prod(_sizes(w)[1:])
    transposed = node.op_type == "Gemm" and attribute(node, "transA", 0)
    return _elements(y) * _sizes(x)[-2 if transposed else -1]


def _rounds(node: Node) -> int:
    if node.op_type == "Scan":
        scanned = attribute(node, "num_scan_inputs", 1)
        axis = node.attributes.get_ints("scan_input_axes", [0])[0]
        return (_sizes(node.inputs[-scanned]) or [1])[axis]
    most = node.inputs[0] if node.op_type == "Loop" else None
    made_by = None if most is None else most.producer()
    if made_by is not None and made_by.op_type == "Size":  # of a tape: those of another Loop
        taped = made_by.inputs[0].producer()
        return 1 if taped is None or taped.op_type != "Loop" else _rounds(taped)
    rounds = number_of(most)
    return 1 if rounds is None or rounds >= _FOR_EVER else int(rounds)


_FOR_EVER = 2**31
"""Rounds; PyTorch writes the greatest number there is where the data ends a loop."""


COUNTED = (Kind.CONVOLUTION, Kind.MATRIX_PRODUCT, Kind.RECURRENT)


def _operands(node: Node) -> list[ir.Value]:
    return [x for x in node.inputs if x is not None]


def _elements(value: ir.Value) -> int:
    return math.prod(_sizes(value))


def _sizes(value: ir.Value) -> list[int]:
    if value.graph is not None and USUAL in value.graph.meta:
        return [n or 1 for n in usual(value)]
    return [_size(size) for size in value.shape or ()]


def _size(size: int | ir.SymbolicDim) -> int:
    """With windows in the batch, 64 · batch, it is those of one image."""
    if isinstance(size, ir.SymbolicDim):
        size = size.evaluate(dict.fromkeys(size.free_symbols(), 1))
    return size if isinstance(size, int) else 1
