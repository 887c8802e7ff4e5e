"""Square weights that are computed: each operator gets memory of its own for OpenVINO."""

from __future__ import annotations

from typing import Any

import numpy as np

_READERS = ("Convolution", "ConvolutionBackpropData", "MatMul")


def own_computed_weights(model: Any) -> None:
    """Fold constants, and give each reader of a square weight made of another a copy, in place.

    The relevances of `onnxplain.export.methods.lrp` use the positive part of a weight W forward
    and, transposed, backward. The processor plugin (2026.4, in float32) took the packed weight of
    one for the other where W has as many output as input channels, silently: ResNet-50's relevances
    were 2 to 15 % off. Constants that were never one are kept apart.
    """
    import openvino.opset13 as ov
    from openvino.passes import ConstantFolding, Manager

    if not any(_is_computed(node) for node in model.get_ordered_ops()):
        return
    manager = Manager()
    manager.register_pass(ConstantFolding())
    manager.run_passes(model)
    for node in model.get_ordered_ops():
        if node.get_type_name() in _READERS:
            weight = node.input_value(1).get_node()
            if weight.get_type_name() == "Constant" and _is_square(weight.get_output_shape(0)):
                own = ov.constant(np.array(weight.data))
                node.input(1).replace_source_output(own.output(0))


def _is_computed(node: Any) -> bool:
    """Whether an operator reads a constant weight through a Relu."""
    if node.get_type_name() not in _READERS:
        return False
    waiting, seen, relu = [node.input_value(1).get_node()], set(), False
    while waiting:
        found = waiting.pop()
        if found.get_type_name() == "Parameter":
            return False
        relu = relu or found.get_type_name() == "Relu"
        for port in found.inputs():
            before = port.get_source_output().get_node()
            if before.get_name() not in seen:
                seen.add(before.get_name())
                waiting.append(before)
    return relu


def _is_square(shape: Any) -> bool:
    return len(shape) > 1 and shape[0] == shape[1] > 1
