"""Which clip is a ReLU in disguise."""

from __future__ import annotations

import onnx_ir as ir

from onnxplain.export.autodiff import Node


def is_relu6(node: Node) -> bool:
    """Whether a Clip is ReLU6: min = 0, max = 6."""
    bounds = [ir.convenience.get_const_tensor(v) for v in node.inputs[1:] if v is not None]
    return [None if b is None else b.numpy().item() for b in bounds] == [0.0, 6.0]
