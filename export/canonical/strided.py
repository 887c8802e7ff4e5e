"""`as_strided` of a contiguous tensor: PyTorch exports it as a gather of every element in order.

The gather's backward would be a scatter-add, which is dear, and which TensorRT does not have.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxplain.export.canonical.emit import Emitted, Emitter, integers, replace
from onnxplain.export.tensors import attribute, dims

_BATCHES = (2, 3)


def spell_strided(model: ir.Model) -> None:
    """`Gather(Reshape(x, [-1]), 0 … n − 1 in some shape)` becomes a Reshape to that shape.

    The indices grow with the batch, so they are computed for two batches. Shapes are known.
    """
    for node in list(model.graph):
        if node.op_type != "Gather" or attribute(node, "axis", 0) != 0:
            continue
        data, indices = node.inputs
        assert data is not None
        assert indices is not None
        flat = data.producer()
        if flat is None or flat.op_type != "Reshape" or len(dims(data)) != 1:
            continue
        small, large = (_evaluated(model, indices, batch) for batch in _BATCHES)
        if small is None or large is None or small.shape[1:] != large.shape[1:]:
            continue
        (x, _) = flat.inputs
        assert x is not None
        counts = [math.prod(_sizes(x, batch)) for batch in _BATCHES]
        if not (_in_order(small, counts[0]) and _in_order(large, counts[1])):
            continue
        shape = [-1, *large.shape[1:]] if small.shape != large.shape else list(large.shape)

        def reshape(emit: Emitter, node: ir.Node, shape: list[int] = shape) -> Emitted:
            return emit("Reshape", node.inputs[0], integers(*shape))

        replace(node, reshape)


def _in_order(indices: np.ndarray, count: int) -> bool:
    return np.array_equal(indices.ravel(), np.arange(count))


def _sizes(value: ir.Value, batch: int) -> list[int]:
    """Its dimensions where the batch has that size; -1 for one that is no multiple of it."""
    sizes = []
    for size in dims(value):
        if isinstance(size, ir.SymbolicDim):
            size = size.evaluate(dict.fromkeys(size.free_symbols(), batch))
        sizes.append(size if isinstance(size, int) else -1)
    return sizes


def _evaluated(model: ir.Model, value: ir.Value, batch: int) -> np.ndarray | None:
    """A value that depends on sizes alone, where the batch has that size; None of another value."""
    above = list(_above(value))
    sizes = {node for node in above if node.op_type == "Shape"}
    nodes = [node for node in model.graph if node in above and node not in sizes]
    made = {y for node in above for y in node.outputs}
    given = {x for node in nodes for x in node.inputs if x is not None} - made
    constants = {str(x.name): ir.convenience.get_const_tensor(x) for x in given}
    if not sizes or any(tensor is None for tensor in constants.values()):
        return None
    feeds = {}
    for node in sizes:
        (measured,) = node.inputs
        assert measured is not None
        start, stop = attribute(node, "start", 0), node.attributes.get_int("end", None)
        feeds[str(node.outputs[0].name)] = integers(*_sizes(measured, batch)[start:stop])
    part = helper.make_graph(
        [ir.to_proto(node) for node in nodes],
        "sizes",
        [helper.make_tensor_value_info(n, TensorProto.INT64, f.shape) for n, f in feeds.items()],
        [helper.make_empty_tensor_value_info(str(value.name))],
        [numpy_helper.from_array(t.numpy(), name) for name, t in constants.items() if t],
    )
    opsets = [helper.make_opsetid("", model.graph.opset_imports[""])]
    evaluator = ReferenceEvaluator(helper.make_model(part, opset_imports=opsets))
    result: np.ndarray = evaluator.run(None, feeds)[0]
    return result


def _above(value: ir.Value | None) -> Iterator[ir.Node]:
    """The nodes that a value is computed by, as far up as the sizes of tensors."""
    seen: set[ir.Node] = set()
    waiting = [value]
    while waiting:
        x = waiting.pop()
        node = x.producer() if x is not None else None
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            waiting.extend(node.inputs if node.op_type != "Shape" else ())
