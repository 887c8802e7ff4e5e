"""Sort matching: activations move towards those of the same rank in a template (VITAL, §3.1)."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.export.canonical.ends import image_axes
from onnxplain.export.composites import without_gradient
from onnxplain.export.layers import is_spatial, spatial_axes
from onnxplain.export.tensors import dims, rank, size_of


def channels_first(op: OpBuilder, value: ir.Value, like: ir.Value, image: ir.Value) -> ir.Value:
    """`value`, which has the shape of the layer `like`, as [N, C, P]: C channels, P positions.

    A layer is [N, C, h, w], [N, h, w, C], tokens [N, P, C], or [N, C] (P = 1).
    """
    if rank(like) == 3:
        return op.Transpose(value, perm=[0, 2, 1])
    if rank(like) == 4 and channel_axis(like, image) == -1:
        value = op.Transpose(value, perm=[0, 3, 1, 2])
    channels, positions = extent(like, image)
    return op.Reshape(value, [-1, channels, positions])


def channel_axis(layer: ir.Value, image: ir.Value) -> int:
    """The axis of a layer's channels, counted from the end."""
    if rank(layer) == 4:
        return spatial_axes(layer, image)[2] if is_spatial(layer) else image_axes(image)[2] - 4
    return -1


def extent(layer: ir.Value, image: ir.Value) -> tuple[int, int]:
    """How many channels and positions a layer has."""
    channel = channel_axis(layer, image)
    sizes = {axis: size_of(layer, axis) for axis in range(1 - rank(layer), 0)}
    channels = sizes.pop(channel)
    positions = 1
    for size in sizes.values():
        positions *= size
    return channels, positions


def one_hot_channel(op: OpBuilder, channel: ir.Value, layer: ir.Value, image: ir.Value) -> ir.Value:
    """[N, C] in the layer's dtype: 1 at each image's `channel` (int64 [N]), and 0 elsewhere."""
    channels = size_of(layer, channel_axis(layer, image))
    return op.CastLike(op.OneHot(channel, channels, [0.0, 1.0], axis=-1), layer)


def of_all(op: OpBuilder, x: ir.Value, together: int, reduce: Callable[..., ir.Value]) -> ir.Value:
    """[N, …]: for each picture what `reduce` makes of so many, those of its class."""
    if together == 1:
        return x
    sizes = dims(x)[1:]
    whole = reduce(op.Reshape(x, [-1, together, *sizes]), [1], keepdims=1)
    found = op.Reshape(op.Expand(whole, [1, together, *[1] * len(sizes)]), [-1, *sizes])
    found.shape = x.shape
    return found


def sort_matching(
    op: OpBuilder, q: ir.Value, template: ir.Value, importance: ir.Value | None
) -> ir.Value:
    """mean_c i_c · mean_p (q_cp − t_c,rank(p))², ranks held constant: each image's loss, [N].

    One sort is enough: its indices place the template.

    Args:
        q: [N, C, P].
        template: t, [N, C, P], each channel in descending order.
        importance: i, [N, C]; None for 1 everywhere.
    """
    _, order = op.TopK(q, [size_of(q, -1)], axis=-1, _outputs=2)
    placed = without_gradient(op, op.ScatterElements(template, order, template, axis=-1))
    difference = op.Sub(q, placed)
    loss = op.ReduceMean(op.Mul(difference, difference), [-1], keepdims=0)
    if importance is not None:
        loss = op.Mul(loss, importance)
    return op.ReduceMean(loss, [-1], keepdims=0)
