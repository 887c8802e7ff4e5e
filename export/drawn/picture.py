"""The explanation's picture as nodes: the formulas are `onnxplain.contract.picture`'s."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnxscript import OpBuilder

from onnxplain.contract.colours import blend, levels
from onnxplain.contract.explain import PULLBACK, Preprocessing
from onnxplain.contract.objective import EXPLAINED_BOX
from onnxplain.contract.picture import (
    GREATEST,
    GREY,
    LEVELS,
    OVERLAY,
    PICTURE,
    PULLBACK_STYLE,
    PictureOptions,
)
from onnxplain.contract.pixels import HEIGHT, PHOTOGRAPH_SIDES, WIDTH
from onnxplain.contract.precision import DRAWING
from onnxplain.export.camera import Camera
from onnxplain.export.drawn.marks import around_boxes, around_region, region_of_network
from onnxplain.export.drawn.scaled import scaled
from onnxplain.export.provenance import named_after
from onnxplain.export.tensors import constant, dims, in_float32, on_device, rank, size_of


@dataclass(frozen=True)
class Canvas:
    """What a picture is drawn on.

    Attributes:
        grey: the photograph's, float [N,h,w] in 0…255.
        place: lays a map [M,C,H,W] of the network's size on it, [M,C,h,w].
        boxes: lays boxes [...,4] on it.
    """

    grey: Callable[[], ir.Value]
    place: Callable[[ir.Value], ir.Value]
    boxes: Callable[[ir.Value], ir.Value]


def add_picture(
    op: OpBuilder,
    look: PictureOptions,
    pre: Preprocessing,
    region: str | None = None,
    camera: Camera | None = None,
) -> None:
    """Give an explain graph the output `picture`, uint8 [N,h,w,3], or [N,K,h,w,3] for K targets;
    with four channels where it is transparent.

    Args:
        look: of a style that graphs draw.
        region: the input that says where the objective looks; drawn by an overlay.
        camera: what stands before the network, and has the photograph; None where the picture is of
            what the network sees.
    """
    graph = op.builder.graph
    pullback = next(y for y in graph.outputs if y.name == PULLBACK)
    with named_after(op, DRAWING):
        canvas = _of_network(op, graph.inputs[0], pre) if camera is None else _of_camera(camera)
        picture = _picture(op, look, pre, pullback, canvas, region)
        picture = op.Cast(picture, to=ir.DataType.UINT8)
    several = rank(pullback) == 5
    leading = dims(pullback)[: 2 if several else 1]
    sizes: list[int | ir.SymbolicDim] = [pre.height, pre.width]
    if camera is not None or pre.any_size:
        names = (HEIGHT, WIDTH) if camera is None else PHOTOGRAPH_SIDES
        sizes = [*map(ir.SymbolicDim, names)]
    picture.name, picture.shape = PICTURE, ir.Shape([*leading, *sizes, look.channels])
    picture.dtype = ir.DataType.UINT8
    graph.outputs.append(picture)


def is_drawn(node: ir.Node) -> bool:
    """Whether a node draws or ranks, and is none of the explanation's."""
    return (node.name or "").startswith(f"{DRAWING}/")


def _of_network(op: OpBuilder, image: ir.Value, pre: Preprocessing) -> Canvas:
    """The image without its normalisation, in whole numbers."""

    def grey() -> ir.Value:
        along = [-1, 1, 1] if pre.layout == "NCHW" else [-1]
        x = in_float32(op, image)
        std, mean = (constant(op, 255 * np.array(v).reshape(along), x) for v in (pre.std, pre.mean))
        x = op.Add(op.Mul(x, std), mean)
        x = op.Transpose(x, perm=[0, 2, 3, 1]) if pre.layout == "NCHW" else x
        if pre.channels != 3:
            return _whole(op, op.ReduceMean(x, [-1], keepdims=0))
        return _weighed(op, _whole(op, x))

    return Canvas(grey, lambda value: value, lambda boxes: boxes)


def _of_camera(camera: Camera) -> Canvas:
    """The whole photograph."""
    op = camera.op

    def both(across: ir.Value, down: ir.Value) -> ir.Value:
        each = [on_device(op, number) for number in (across, down)]
        return op.Cast(op.Concat(*each, *each, axis=0), to=ir.DataType.FLOAT)

    def boxes(given: ir.Value) -> ir.Value:
        columns, rows = camera.columns, camera.rows
        side, resized = both(columns.side, rows.side), both(columns.resized, rows.resized)
        return op.Div(op.Mul(op.Add(given, both(columns.first, rows.first)), side), resized)

    return Canvas(camera.grey, camera.place, boxes)


def _whole(op: OpBuilder, x: ir.Value) -> ir.Value:
    return op.Clip(op.Round(x), 0.0, 255.0)


def _weighed(op: OpBuilder, photograph: ir.Value) -> ir.Value:
    """Float [N,h,w,3] in grey, [N,h,w]."""
    weights = constant(op, np.array(GREY).reshape(3, 1), photograph)
    return op.Squeeze(op.MatMul(photograph, weights), [-1])


def _counted(op: OpBuilder, x: ir.Value) -> ir.Value:
    return op.Where(op.Less(op.Abs(x), GREATEST), x, 0.0)


def _picture(
    op: OpBuilder,
    look: PictureOptions,
    pre: Preprocessing,
    pullback: ir.Value,
    canvas: Canvas,
    region: str | None,
) -> ir.Value:
    """[N,h,w,3] or [N,K,h,w,3], or of four channels, in floats, whose fraction is to be dropped."""
    several, graph = rank(pullback) == 5, op.builder.graph
    maps, channels = _maps(op, _counted(op, in_float32(op, pullback)), pre, several)
    values = scaled(op, look, maps, channels, pre)
    values = canvas.place(values)
    if look.style == PULLBACK_STYLE:
        pixels = op.Transpose(op.Add(op.Mul(values, 127.5), 128.0), perm=[0, 2, 3, 1])
        sizes = op.Shape(pixels, start=1, end=3)
        pixels = op.Expand(pixels, op.Concat([1], sizes, [3], axis=0))
        return _by_target(op, pixels, pullback) if several else pixels
    scale, shift = (LEVELS / 2, LEVELS / 2) if look.has_signs else (LEVELS, 0)
    level = op.Add(op.Mul(values, float(scale)), shift + 0.5)
    level = op.Cast(op.Squeeze(level, [1]), to=ir.DataType.INT32)
    level = _by_target(op, level, pullback) if several else level
    flat = op.Reshape(level, [-1])
    if look.style != OVERLAY or look.transparent:
        colours = [_looked_up(op, column, flat, values) for column in levels(look).T]
    else:
        keep, *colours = (_looked_up(op, column, flat, values) for column in blend(look).T)
        grey = op.Unsqueeze(canvas.grey(), [1]) if several else canvas.grey()
        kept = op.Reshape(op.Mul(op.Reshape(keep, op.Shape(level)), grey), [-1])
        colours = [op.Add(colour, kept) for colour in colours]
    planes = op.Concat(*(op.Unsqueeze(colour, [0]) for colour in colours), axis=0)
    pixels = op.Transpose(planes, perm=[1, 0])
    pixels = op.Reshape(pixels, op.Concat(op.Shape(level), [len(colours)], axis=0))
    pixels.shape = ir.Shape([*dims(level), len(colours)])
    if look.style != OVERLAY:
        return pixels
    if region is not None:
        given = next(x for x in graph.inputs if x.name == region)
        inside = region_of_network(op, in_float32(op, given), maps)
        within = op.CastLike(op.GreaterOrEqual(canvas.place(inside), 0.5), inside)
        pixels = around_region(op, pixels, within, several)
    for output in graph.outputs:
        if output.name == EXPLAINED_BOX:
            boxes = canvas.boxes(in_float32(op, output))
            pixels = around_boxes(op, pixels, boxes, several)
    return pixels


def _looked_up(
    op: OpBuilder, column: NDArray[np.float64], level: ir.Value, like: ir.Value
) -> ir.Value:
    """A colour map's column at levels [P], float [P].

    By GatherElements: ONNX Runtime's Gather takes 14 times as long, as it copies element by
    element.
    """
    return op.GatherElements(constant(op, column, like), level, axis=0)


def _maps(
    op: OpBuilder, pullback: ir.Value, pre: Preprocessing, several: bool
) -> tuple[ir.Value, int]:
    """[N,C,H,W], the targets together with the images, of a pullback of either layout; and C."""
    channels = size_of(pullback, -1 if pre.layout == "NHWC" else -3)
    if several:
        sizes = [-1, *pre.shape(channels)]
        if pre.any_size:
            sizes = op.Concat([-1], op.Shape(pullback, start=2), axis=0)
        each = op.Reshape(pullback, sizes)
        each.shape = ir.Shape([None, *dims(pullback)[2:]])
        pullback = each
    if pre.layout == "NHWC":
        pullback = op.Transpose(pullback, perm=[0, 3, 1, 2])
    return pullback, channels


def _by_target(op: OpBuilder, x: ir.Value, pullback: ir.Value) -> ir.Value:
    """[N · K, …] as [N, K, …]."""
    leading = op.Shape(pullback, start=0, end=2)
    y = op.Reshape(x, op.Concat(leading, op.Shape(x, start=1), axis=0))
    y.shape = ir.Shape([*dims(pullback)[:2], *dims(x)[1:]])
    return y
