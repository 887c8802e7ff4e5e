"""Convolutions whose windows are bent by offsets that depend on the image."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxplain.errors import SourceError
from onnxplain.export.canonical.emit import Emitted, Emitter, integers
from onnxplain.export.tensors import attribute, rank, size_of, static


def is_line(node: ir.Node) -> bool:
    """Whether what is sampled has one axis, of which ONNX Runtime takes two or three."""
    x = node.inputs[0]
    return x is not None and x.shape is not None and rank(x) == 3


def sampled_line(emit: Emitter, node: ir.Node) -> Emitted:
    """A line is an image of one row, or of several that are the same, on the middle one of which
    every place lies."""
    x, grid = node.inputs
    across = emit("Unsqueeze", grid, integers(1))
    places = emit("Pad", across, integers(0, 0, 0, 0, 0, 0, 0, 1))  # along the row, then across it
    rows = emit("Unsqueeze", x, integers(2))
    if node.attributes.get_string("mode", "linear") == "cubic":  # which looks at rows beside it
        rows = emit("Expand", rows, integers(1, 1, 5, 1))
    attributes = {name: a.value for name, a in node.attributes.items()}
    return emit("Squeeze", emit("GridSample", rows, places, **attributes), integers(2))


def deformable_convolution(emit: Emitter, node: ir.Node) -> Emitted:
    """The elements of all windows, found by GridSample, times the weights (Zhu et al., "Deformable
    ConvNets v2", arXiv 1811.11168)."""
    x, weight, offset, bias, mask = [*node.inputs, None, None][:5]
    assert x is not None
    assert weight is not None
    assert offset is not None
    if rank(x) != 4:
        raise SourceError(
            f"DeformConv {node.name!r} is over {rank(x) - 2} axes; those of images, over two, are "
            "the only ones with a rule"
        )
    channels, *size = static(x, 1)
    kernel, out = static(weight, 2), static(offset, 2)
    elements, places = int(np.prod(kernel)), int(np.prod(out))
    groups, bent = attribute(node, "group", 1), attribute(node, "offset_group", 1)
    strides, dilations = (
        node.attributes.get_ints(name, [1] * len(kernel)) for name in ("strides", "dilations")
    )
    pads = node.attributes.get_ints("pads", [0] * 2 * len(kernel))

    moved = emit("Reshape", offset, integers(-1, elements, 2, *out))
    at = []
    for i, n in enumerate(size):
        of_element = np.indices(kernel)[i].reshape(-1, 1, 1) * dilations[i]
        place = np.indices(out)[i][None] * strides[i] - pads[i] + of_element
        each = emit("Gather", moved, np.array(i), axis=2)
        pixel = emit("Add", each, place.astype(float))
        # From −1 to 1 over the image, whose first pixel has its centre half a pixel inside.
        scaled = emit("Mul", pixel, np.array(2 / n))
        scaled = emit("Add", scaled, np.array(1 / n - 1))
        at.append(emit("Unsqueeze", scaled, integers(-1)))
    grid = emit("Concat", *reversed(at), axis=-1)
    grid = emit("Reshape", grid, integers(-1, elements * out[0], out[1], 2))
    grouped = emit("Reshape", x, integers(-1, channels // bent, *size))
    taken = emit("GridSample", grouped, grid, mode="linear", padding_mode="zeros", align_corners=0)
    if mask is not None:
        shares = emit("Reshape", mask, integers(-1, 1, elements * out[0], out[1]))
        taken = emit("Mul", taken, shares)

    inner = channels // groups * elements
    columns = emit("Reshape", taken, integers(-1, groups, inner, places))
    rows = emit("Reshape", weight, integers(groups, size_of(weight, 0) // groups, inner))
    y = emit("Reshape", emit("MatMul", rows, columns), integers(-1, size_of(weight, 0), *out))
    if bias is None:
        return y
    return emit("Add", y, emit("Unsqueeze", bias, integers(1, 2)))
