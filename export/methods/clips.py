"""Which clip is a ReLU in disguise."""

from __future__ import annotations

from onnxplain.export.autodiff import Node
from onnxplain.export.tensors import number_of

NO_CUT = 1e4
"""From here on, an upper bound is none in practice: it keeps numbers within half precision (65504),
or stands for infinity. Those that a network is to reach are small: 1, 6, 20, 255."""


def is_rectifier(node: Node) -> bool:
    """Whether a Clip is a ReLU6, from 0 to 6, or a ReLU with a bound that cuts nothing.

    It stays a Clip, whose values and gradient are those of the source.
    """
    bounds = [number_of(v) for v in node.inputs[1:] if v is not None]
    if len(bounds) != 2 or bounds[0] != 0 or bounds[1] is None:
        return False
    return bounds[1] == 6 or bounds[1] >= NO_CUT
