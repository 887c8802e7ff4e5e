"""The window of a convolution or pool, read from its node."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnxplain.export.autodiff import Node
from onnxplain.export.tensors import static
from onnxplain.kernels.windows import Window


def window_of(node: Node, x: ir.Value, y: ir.Value, kernel: Sequence[int] | None = None) -> Window:
    """The window that slides over `x` (the finer side) and leaves `y` (the coarser one)."""
    size, out = static(x, 2), static(y, 2)
    axes = len(size)
    kernel = kernel or list(node.attributes.get_ints("kernel_shape"))
    strides = list(node.attributes.get_ints("strides", [1] * axes))
    dilations = list(node.attributes.get_ints("dilations", [1] * axes))
    covered = [
        (o - 1) * s + (k - 1) * d + 1
        for o, s, k, d in zip(out, strides, kernel, dilations, strict=True)
    ]
    total = [c - n for c, n in zip(covered, size, strict=True)]
    auto_pad = node.attributes.get_string("auto_pad", "NOTSET")
    if "output_shape" in node.attributes and auto_pad != "SAME_UPPER":
        auto_pad = "SAME_LOWER"  # ConvTranspose pads so whatever `pads` says
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        more = node.attributes.get_ints("output_padding", [0] * axes)  # counts as padded too
        total = [max(t + m, 0) for t, m in zip(total, more, strict=True)]
        before = [(t + (auto_pad == "SAME_LOWER")) // 2 for t in total]
    elif auto_pad == "VALID":
        before = [0] * axes
    else:
        before = list(node.attributes.get_ints("pads", [0] * 2 * axes))[:axes]
    after = [c - n - b for c, n, b in zip(covered, size, before, strict=True)]
    return Window(*map(tuple, (size, out, kernel, strides, dilations, before, after)))


def window_of_blocks(node: Node, kernel: Sequence[int]) -> Window:
    """The window of a Col2Im: its image is the finer side, the grid of its blocks the coarser."""
    size, axes = static(node.outputs[0], 2), len(kernel)
    strides, dilations = (
        node.attributes.get_ints(name, [1] * axes) for name in ("strides", "dilations")
    )
    pads = node.attributes.get_ints("pads", [0] * 2 * axes)
    before, behind = pads[:axes], pads[axes:]
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    room = [sum(n) for n in zip(size, before, behind, strict=True)]
    out = [(n - r) // s + 1 for n, r, s in zip(room, reach, strides, strict=True)]
    covered = [(o - 1) * s + r for o, s, r in zip(out, strides, reach, strict=True)]
    after = [c - n - b for c, n, b in zip(covered, size, before, strict=True)]
    return Window(*map(tuple, (size, out, kernel, strides, dilations, before, after)))
