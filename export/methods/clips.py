"""Which clip is a ReLU in disguise."""

from __future__ import annotations

from onnxplain.export.autodiff import Node
from onnxplain.export.tensors import number_of


def is_relu6(node: Node) -> bool:
    """Whether a Clip is ReLU6: min = 0, max = 6."""
    return [number_of(v) for v in node.inputs[1:] if v is not None] == [0.0, 6.0]
