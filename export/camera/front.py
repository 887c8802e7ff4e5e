"""A camera's pixels made the network's input: resized, fitted and normalised by nodes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.contract.explain import IMAGE, Preprocessing
from onnxplain.contract.pixels import (
    BGR,
    BGR_PLANAR,
    GRAY,
    HEIGHT,
    NV12,
    PHOTOGRAPH_SIDES,
    ROWS,
    SEEN,
    WIDTH,
    Pixels,
)
from onnxplain.contract.precision import CAMERA
from onnxplain.errors import SourceError
from onnxplain.export.camera.axis import Axis, axes
from onnxplain.export.camera.camera import Camera
from onnxplain.export.camera.colours import luminance, rgb_of_nv12
from onnxplain.export.camera.passes import resampled
from onnxplain.export.camera.resampling import NEAREST, in_photograph
from onnxplain.export.provenance import named_after
from onnxplain.export.tensors import constant, dims, scalar_size_at


def see(op: OpBuilder, pre: Preprocessing, pixels: Pixels) -> Camera:
    """Put a camera before an explain graph: `image` becomes uint8 pixels of any height and width.

    What was `image` becomes a value within, which all nodes go on to read.

    Args:
        op: the graph's builder.
        pre: what the network's input is made by; Pillow resizes so to 1/255.
        pixels: how they lie in `image`.

    Raises:
        SourceError: the network takes neither one channel nor three.
    """
    if pre.channels not in (1, 3):
        raise SourceError(
            f"preprocess= makes images of photographs, and the network takes {pre.channels} "
            "channels, which no photograph has"
        )
    graph = op.builder.graph
    seen = graph.inputs[0]
    graph.inputs.remove(seen)
    seen.name = f"{SEEN}.before"
    sizes = [size or name for size, name in zip(pixels.shape, _names(pixels, pre), strict=True)]
    frame = op.builder.input(
        IMAGE, ir.DataType.UINT8, [dims(seen)[0], *(_size(size) for size in sizes)]
    )
    graph.inputs.remove(frame)
    graph.inputs.insert(0, frame)
    with named_after(op, CAMERA):
        return _camera(op, seen, frame, pre, pixels)


def is_camera(node: ir.Node) -> bool:
    """Whether a node is none of the network's, nor of its explanation, but of this package."""
    return (node.name or "").startswith(f"{CAMERA}/")


def _camera(
    op: OpBuilder, seen: ir.Value, frame: ir.Value, pre: Preprocessing, pixels: Pixels
) -> Camera:
    """Between `frame`, the pixels, and `seen`, what was the image."""
    value, down = op.Cast(frame, to=ir.DataType.FLOAT), pixels.axes[0]  # TensorRT has no uint8
    if pixels.format == GRAY:
        value = op.Unsqueeze(value, [3])
    elif pixels.format == NV12:
        value, down = rgb_of_nv12(op, value), 2
    height, width = (scalar_size_at(op, value, axis) for axis in (down, down + 1))
    rows, columns = axes(op, height, width, pre)
    small = _resized(op, value, rows, columns, pre, down)
    small = _coloured(op, small, pixels, pre)
    if pre.layout == "NHWC":
        small = op.Transpose(small, perm=[0, 2, 3, 1])
    if not pre.any_size:
        small = op.Reshape(small, [0, *pre.image_shape])
    small = _normalised(op, small, pre)
    if seen.dtype != small.dtype:
        small = op.Cast(small, to=seen.dtype)
    small.shape, small.name = seen.shape, SEEN
    ir.convenience.replace_all_uses_with(seen, small)
    return Camera(op, value, down, _colours(pixels), rows, columns, pre)


def _names(pixels: Pixels, pre: Preprocessing) -> list[str]:
    """Of the sizes, as far as they are open; where the network has open ones too, others."""
    named = [*(PHOTOGRAPH_SIDES if pre.any_size else (HEIGHT, WIDTH))]
    named[0] = ROWS if pixels.format == NV12 else named[0]
    return [named.pop(0) if size is None else "" for size in pixels.shape]


def _size(size: int | str) -> int | ir.SymbolicDim:
    return size if isinstance(size, int) else ir.SymbolicDim(size)


def _resized(
    op: OpBuilder, value: ir.Value, rows: Axis, columns: Axis, pre: Preprocessing, down: int
) -> ir.Value:
    """Whole numbers [N, h, w, C] or [N, C, h, w], h being the axis `down`, as [N, C, H, W]."""
    if pre.keeps_pixels:
        return op.Transpose(value, perm=[0, 3, 1, 2]) if down == 1 else value
    inside = [in_photograph(op, axis, axis.size) for axis in (rows, columns)]
    if pre.interpolation == NEAREST:
        for axis, centres in enumerate(inside, down):
            value = op.Gather(value, centres.whole, axis=axis)
        small = op.Transpose(value, perm=[0, 3, 1, 2]) if down == 1 else value
    else:
        small = resampled(op, value, rows, columns, pre.interpolation, down)
    if not pre.any_size and (pre.fill or pre.interpolation == NEAREST):
        shown = op.Mul(op.Unsqueeze(inside[0].within, [1]), inside[1].within)
        small = op.Add(op.Mul(small, shown), op.Mul(op.Sub(1.0, shown), float(pre.fill)))
    return small


def _coloured(op: OpBuilder, small: ir.Value, pixels: Pixels, pre: Preprocessing) -> ir.Value:
    """[N, C, H, W] in the channels that the network takes."""
    if pixels.format in (BGR, BGR_PLANAR):
        small = op.Gather(small, [2, 1, 0], axis=1)
    if pre.channels == 1 and pixels.format != GRAY:
        return luminance(op, small)
    if pre.channels == 3 and pixels.format == GRAY:
        return op.Concat(small, small, small, axis=1)
    return small


def _normalised(op: OpBuilder, image: ir.Value, pre: Preprocessing) -> ir.Value:
    """(x / 255 - mean) / std."""
    along = [-1, 1, 1] if pre.layout == "NCHW" else [-1]
    std = np.array(pre.std, np.float64)
    scale = constant(op, (1 / (255 * std)).reshape(along), image)
    return op.Sub(
        op.Mul(image, scale), constant(op, (np.array(pre.mean) / std).reshape(along), image)
    )


def _colours(pixels: Pixels) -> tuple[int, int, int]:
    """Which channels are red, green and blue."""
    if pixels.format == GRAY:
        return 0, 0, 0
    return (2, 1, 0) if pixels.format in (BGR, BGR_PLANAR) else (0, 1, 2)
