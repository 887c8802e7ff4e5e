"""A Resize to sizes that are written down, as one by scales: so it holds for every batch."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxplain.export.tensors import array_of, dims
from onnxplain.initializers import initializer


def scale_resizes(graph: ir.Graph) -> None:
    """Constant sizes → their ratios to those of the input, where these lead to the same sizes."""
    for node in graph:
        sizes = array_of([*node.inputs, None, None, None, None][3])
        if node.op_type != "Resize" or sizes is None or set(node.attributes) & _BY_SIZE:
            continue
        x = node.inputs[0]
        assert x is not None
        axes = node.attributes.get_ints("axes", list(range(len(dims(x)))))
        before = [dims(x)[axis] for axis in axes]
        if not all(isinstance(n, int) and n > 0 for n in before):
            continue
        scales = sizes.astype(np.float32) / np.array(before, np.float32)
        if (np.floor(np.array(before, np.float32) * scales) != sizes).any():
            continue
        name = f"{node.outputs[0].name}.scales"
        node.resize_inputs(3)
        node.replace_input_with(2, initializer(graph, name, scales))


_BY_SIZE = {"keep_aspect_ratio_policy"}
