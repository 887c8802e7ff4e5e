"""`as_strided` of a contiguous tensor: PyTorch exports it as a gather of every element in order.

The gather's backward would be a scatter-add, which is expensive and which TensorRT lacks.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from onnxplain.export.canonical.emit import Emitted, Emitter, integers, replace
from onnxplain.export.canonical.evaluate import concrete, evaluated
from onnxplain.export.canonical.opsets import opset_of
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
        x = flat.inputs[0]
        assert x is not None
        small, large = (_in_order(x, indices, opset_of(model), batch) for batch in _BATCHES)
        if small is None or large is None or small[1:] != large[1:]:
            continue
        shape = [-1, *large[1:]] if small != large else list(large)

        def reshape(emit: Emitter, node: ir.Node, shape: list[int] = shape) -> Emitted:
            return emit("Reshape", node.inputs[0], integers(*shape))

        replace(node, reshape)


def _in_order(x: ir.Value, indices: ir.Value, opset: int, batch: int) -> tuple[int, ...] | None:
    """The indices' shape, if they index all elements of x in order, else None."""
    sizes = concrete(x, batch)
    if sizes is None or any(isinstance(n, ir.SymbolicDim) and n.value is None for n in dims(x)):
        return None
    count = math.prod(sizes)
    table = evaluated(indices, opset, batch, largest=max(count, 100))
    in_order = table is not None and np.array_equal(table.ravel(), np.arange(count))
    return table.shape if table is not None and in_order else None
