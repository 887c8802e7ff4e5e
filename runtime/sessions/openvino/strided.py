"""Strided transposed convolutions in bfloat16 on OpenVINO, phase by phase.

OpenVINO (2026.4) has no fast bfloat16 kernel for a depthwise ConvolutionBackpropData: the four of
EfficientNet-Lite0 took more than half of an explanation; 144 channels of 5 × 5 onto 56 × 56 are
1.6 ms so, and were 12. A 1 × 1 one of 512 channels onto 56 × 56 is 3.0 ms, and was 6.4. Others, and
all in float32, are as fast or faster as they are.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from onnxplain.sub_pixel import phase

_PLANE = [-2, -1]  # height and width
_FIRST = int(np.iinfo(np.int64).min)
_GROUPED = "GroupConvolutionBackpropData"


def strided_by_phases(model: Any) -> None:
    """Replace, in an `openvino.Model`, those that are depthwise or of a 1 × 1 kernel."""
    for node in model.get_ordered_ops():
        if node.get_type_name() not in ("ConvolutionBackpropData", _GROUPED) or not _gains(node):
            continue
        if (better := _by_phases(node)) is not None:
            node.output(0).replace(better.output(0))


def _gains(node: Any) -> bool:
    data, weights = (node.input_value(i).get_partial_shape() for i in (0, 1))
    known = (weights, data[2:], node.output(0).get_partial_shape()[2:])
    if len(data) != 4 or not all(shape.is_static for shape in known):
        return False
    attributes, shape = node.get_attributes(), weights.to_shape()
    narrow = shape[1:3] if node.get_type_name() == _GROUPED else shape[2:]
    stride, *others = {*attributes["strides"]}
    return [*narrow] == [1, 1] and stride > 1 and not others and {*attributes["dilations"]} == {1}


def _by_phases(node: Any) -> Any | None:
    """A convolution for each phase of the output (`onnxplain.sub_pixel`), and DepthToSpace.

    None where a convolution would leave out some of the input.
    """
    from openvino import opset13 as ops

    attributes = node.get_attributes()
    s: int = attributes["strides"][0]
    g, w = node.input_value(0), node.input_value(1)
    kernel, given, wanted = (
        value.get_partial_shape()[-2:].to_shape() for value in (w, g, node.output(0))
    )
    along = [
        [_phase(b, s, *sizes) for b in range(s)]
        for sizes in zip(attributes["pads_begin"], kernel, given, wanted, strict=True)
    ]
    if any(min(made[1:]) < 0 for axis in along for made in axis if made):
        return None
    convolution = ops.group_convolution
    if node.get_type_name() != _GROUPED:
        w, convolution = ops.transpose(w, [1, 0, 2, 3]), ops.convolution
    phases: list[Any] = []
    for pair in itertools.product(*along):
        if None in pair:
            phases.append(None)
            continue
        last, before, after = zip(*pair, strict=True)
        elements = ops.slice(w, [*last], [_FIRST, _FIRST], [-s, -s], _PLANE)
        phases.append(convolution(g, elements, [1, 1], [*before], [*after], [1, 1]))
    zero = ops.multiply(next(made for made in phases if made), np.float32(0))
    spread = ops.concat([made or zero for made in phases], 1)
    return ops.slice(
        ops.depth_to_space(spread, "blocks_first", s), [0, 0], [*wanted], [1, 1], _PLANE
    )


def _phase(
    b: int, s: int, p: int, kernel: int, given: int, wanted: int
) -> tuple[int, int, int] | None:
    """Along one axis, the last element of the kernel that meets the outputs s q + b, and the zeros.

    None: no element meets them.
    """
    first, element = divmod(b + p, s)
    taps, before, after = phase(element, first, s, kernel, given, -(-wanted // s))
    return (element + s * (taps - 1), before, after) if taps else None
