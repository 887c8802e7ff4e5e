"""Sizes that a graph computes from its own shapes, found with the batch left open.

Exporters write `x.view(x.shape[0], 2, x.shape[1] // 2, …)` as arithmetic on the result of a Shape
node. With a dynamic batch no constant folding sees through it, although only the batch is open. So
the graph is folded twice with a concrete batch, of 2 and of 3: what comes out the same for both
does not depend on the batch.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from onnxplain.export.autodiff import dependents
from onnxplain.export.tensors import dims
from onnxplain.initializers import initializer

_BATCHES = (2, 3)
_LARGE = 1024  # elements; with more it is no list of sizes


def settle_sizes(model: ir.Model, image: ir.Value, simplify: Callable[[ir.Model], None]) -> None:
    """Make constants of the sizes that do not depend on the batch, and infer all shapes.

    `simplify` folds the constants of a model in place.
    """
    graph = model.graph
    if isinstance(dims(image)[0], int) or not any(node.op_type == "Shape" for node in graph):
        return
    first, second = (_with_batch(model, image, batch, simplify) for batch in _BATCHES)
    active = dependents(graph, [image])
    for node in list(graph):
        for value in node.outputs:
            pair = first.get(value.name), second.get(value.name)
            if pair[0] is not None and pair[1] is not None:
                _settle(graph, value, pair[0], pair[1], value in active)
        if node.op_type == "Reshape":
            _settle_reshape(graph, node)
    common.RemoveUnusedNodesPass()(model)
    common.ShapeInferencePass()(model)


def _with_batch(
    model: ir.Model, image: ir.Value, batch: int, simplify: Callable[[ir.Model], None]
) -> dict[str | None, ir.Value]:
    """The model's values by name, when it is simplified for batches of one size."""
    copy = model.clone()
    concrete = next(value for value in copy.graph.inputs if value.name == image.name)
    concrete.shape = ir.Shape([batch, *dims(image)[1:]])
    for node in copy.graph:
        for value in node.outputs:
            value.shape = None  # found with an open batch
    for value in copy.graph.outputs:
        value.shape = None
    common.ShapeInferencePass()(copy)
    values = {value.name: value for node in copy.graph for value in node.outputs}
    simplify(copy)  # where the batch decides a branch, the sizes that decided it are gone
    values |= {value.name: value for node in copy.graph for value in node.outputs}
    return values | {value.name: value for value in copy.graph.initializers.values()}


def _settle(graph: ir.Graph, value: ir.Value, a: ir.Value, b: ir.Value, active: bool) -> None:
    """Give a value its constant, or the part of its shape that is the same for both batches."""
    numbers = [ir.convenience.get_const_tensor(v) for v in (a, b)]
    if numbers[0] is not None and numbers[1] is not None and not active:
        small = numbers[0].size <= _LARGE and not value.is_graph_output()
        if small and np.array_equal(numbers[0].numpy(), numbers[1].numpy()):
            constant = initializer(graph, f"{value.name}.settled", numbers[0].numpy())
            ir.convenience.replace_all_uses_with(value, constant)
            return
    if a.shape is None or b.shape is None or len(a.shape) != len(b.shape):
        return
    sizes: list[int | ir.SymbolicDim] = []
    for m, n in zip(a.shape, b.shape, strict=True):
        sizes.append(m if isinstance(m, int) and m == n else _multiple_of_batch(m, n))
    value.shape = ir.Shape(sizes)


def _multiple_of_batch(m: int | ir.SymbolicDim, n: int | ir.SymbolicDim) -> ir.SymbolicDim:
    """The size that is m for one batch and n for the other."""
    if not isinstance(m, int) or not isinstance(n, int):
        return ir.SymbolicDim(None)
    factor = n - m
    if (m, n) != (_BATCHES[0] * factor, _BATCHES[1] * factor):
        return ir.SymbolicDim(None)
    return ir.SymbolicDim("batch" if factor == 1 else f"{factor}*batch")


def _settle_reshape(graph: ir.Graph, node: ir.Node) -> None:
    """Give a Reshape with one open size a constant shape, with -1 for it."""
    y, given = node.outputs[0], node.inputs[1]
    if y.shape is None or given is None or ir.convenience.get_const_tensor(given) is not None:
        return
    sizes = [size if isinstance(size, int) else -1 for size in y.shape]
    if sizes.count(-1) == 1 and 0 not in sizes:
        constant = initializer(graph, f"{y.name}.shape", np.array(sizes, np.int64))
        node.replace_input_with(1, constant)
