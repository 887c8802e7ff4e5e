"""The window of a convolution or pool, read from its node."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnxplain.errors import OpenSizeError
from onnxplain.export.autodiff import Node
from onnxplain.export.tensors import attribute, dims, static
from onnxplain.kernels.windows import Window


def window_of(node: Node, x: ir.Value, y: ir.Value, kernel: Sequence[int] | None = None) -> Window:
    """The window that slides over `x` (the finer side) and leaves `y` (the coarser one).

    Raises:
        OpenSizeError: along an axis of open size, where its padding or the number of windows is no
            plain function of that.
    """
    kernel = kernel or list(node.attributes.get_ints("kernel_shape"))
    strides = list(node.attributes.get_ints("strides", [1] * len(kernel)))
    dilations = list(node.attributes.get_ints("dilations", [1] * len(kernel)))
    pads = list(node.attributes.get_ints("pads", [0] * 2 * len(kernel)))
    more = node.attributes.get_ints("output_padding", [0] * len(kernel))
    auto_pad = node.attributes.get_string("auto_pad", "NOTSET")
    if "output_shape" in node.attributes and auto_pad != "SAME_UPPER":
        auto_pad = "SAME_LOWER"  # ConvTranspose pads so whatever `pads` says
    size, out, before, after, slack = [], [], [], [], []
    for i, (n, m) in enumerate(zip(dims(x)[2:], dims(y)[2:], strict=True)):
        known = isinstance(n, int) and isinstance(m, int)
        s, reach = strides[i], (kernel[i] - 1) * dilations[i]
        if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            if not known and (s > 1 or "output_shape" in node.attributes):
                raise OpenSizeError(f"auto_pad={auto_pad} with the stride {s}")
            covered = (m - 1) * s + reach + 1 - n if known else reach  # type: ignore[operator]
            total = max(covered + more[i], 0)  # output_padding counts as padded too
            begin = (total + (auto_pad == "SAME_LOWER")) // 2
            end = total - more[i] - begin
        elif auto_pad == "VALID":
            begin, end = 0, -more[i]
        else:
            begin, end = pads[i], pads[len(kernel) + i] - more[i]
        left = 0
        if known:
            end = (m - 1) * s + reach + 1 - n - begin  # type: ignore[operator]
        elif node.op_type != "ConvTranspose":  # of that, x is no more than is written
            left = s - 1
            if not attribute(node, "ceil_mode", 0):
                end -= left
            elif reach + 1 - end <= left:
                raise OpenSizeError("ceil_mode, where a window may begin behind the last element")
        size.append(n if known else None)
        out.append(m if known else None)
        before.append(begin)
        after.append(end)
        slack.append(left)
    return Window(*map(tuple, (size, out, kernel, strides, dilations, before, after, slack)))


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
    slack = [0] * axes
    return Window(*map(tuple, (size, out, kernel, strides, dilations, before, after, slack)))
