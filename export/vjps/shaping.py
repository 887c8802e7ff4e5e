"""Operators that move elements about, and interpolation."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.errors import NoRuleError
from onnxplain.export.autodiff import Cotangents, Node
from onnxplain.export.tensors import (
    along_axis,
    attribute,
    axes_from_end,
    axis_from_end,
    constant,
    constant_of,
    dims,
    gather_transpose,
    rank,
    reshape,
    reshape_like,
    size_of,
    static,
    unbroadcast,
    zeros_like,
)
from onnxplain.export.vjps.table import register_vjp


@register_vjp("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshaping(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    return reshape_like(op, g, node.inputs[0])


@register_vjp("Transpose")
def transpose(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    perm = node.attributes.get_ints("perm", list(reversed(range(rank(node.inputs[0])))))
    return op.Transpose(g, perm=np.argsort(perm).tolist())


@register_vjp("Expand")
def expand(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    return unbroadcast(op, g, node.inputs[0], node.outputs[0])


@register_vjp("Concat")
def concat(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    axis = axis_from_end(node, 0, node.outputs[0])
    sizes = [size_of(x, axis) for x in node.inputs]
    if len(sizes) == 1:
        return g
    return list(op.Split(g, sizes, axis=axis, _outputs=len(sizes)))


@register_vjp("Split")
def split(op: OpBuilder, node: Node, *gs: ir.Value | None) -> Cotangents:
    parts = [zeros_like(op, y) if g is None else g for g, y in zip(gs, node.outputs, strict=True)]
    return op.Concat(*parts, axis=axis_from_end(node, 0, node.inputs[0]))


@register_vjp("Slice")
def slicing(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    x = node.inputs[0]
    starts, ends, axes, steps = (
        constant_of(value, f"the {name} of Slice")
        for value, name in zip(
            [*node.inputs[1:], None, None][:4], ("starts", "ends", "axes", "steps"), strict=True
        )
    )
    assert starts is not None
    assert ends is not None
    at = axes_from_end(range(len(starts)) if axes is None else axes.tolist(), rank(x))
    for axis, start, end, step in zip(
        at, starts, ends, np.ones_like(starts) if steps is None else steps, strict=True
    ):
        if (start, step) == (0, 1) and end >= np.iinfo(np.int32).max:
            continue  # takes the whole axis, which may be the dynamic one
        size = size_of(x, axis)
        # An end below -size means "past the first" when the step is negative.
        stop = None if step < 0 and end < -size else int(end)
        taken = np.arange(size)[int(start) : stop : int(step)]
        g = gather_transpose(op, g, x, axis, taken, size)
    return g


@register_vjp("Pad")
def pad(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    x, pads, _, axes = [*node.inputs, None, None][:4]
    assert x is not None
    amounts = constant_of(pads, "the pads of Pad")
    assert amounts is not None
    given = constant_of(axes, "the axes of Pad")
    at = axes_from_end(range(rank(x)) if given is None else given.tolist(), rank(x))
    mode = node.attributes.get_string("mode", "constant")
    for axis, before, after in zip(at, *np.split(amounts, 2), strict=True):
        if before == after == 0:
            continue
        size = size_of(x, axis)
        # Where each padded position comes from; -1 marks those that come from nowhere.
        kept = np.arange(size)[max(-before, 0) : size + min(after, 0)]
        widths = (max(before, 0), max(after, 0))
        if mode == "constant":
            source = np.pad(kept, widths, constant_values=-1)
        else:
            source = np.pad(kept, widths, mode=mode)  # type: ignore[call-overload]
        g = _from_source(op, g, x, axis, source, size)
    return g


def _from_source(
    op: OpBuilder, g: ir.Value, x: ir.Value, axis: int, source: np.ndarray, size: int
) -> ir.Value:
    inside = np.flatnonzero(source >= 0)
    if len(inside) < len(source):
        g = op.Slice(g, [int(inside[0])], [int(inside[-1]) + 1], [axis])
    return gather_transpose(op, g, x, axis, source[inside], size)


@register_vjp("Gather")
def gather(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    x, index = node.inputs
    indices = constant_of(index, "the indices of Gather")
    assert indices is not None
    axis = axis_from_end(node, 0, x)
    sizes = dims(x)
    sizes[axis] = indices.size
    flat = g if indices.ndim == 1 else reshape(op, g, sizes)
    return gather_transpose(op, flat, x, axis, indices.reshape(-1), size_of(x, axis))


@register_vjp("GatherND")
def gather_nd(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """A Gather of rows, once the indexed axes are merged into one."""
    x, index = node.inputs
    indices = constant_of(index, "the indices of GatherND")
    assert indices is not None
    if attribute(node, "batch_dims", 0):
        raise NoRuleError(f"no rule for GatherND with batch_dims, at node {node.name!r}")
    sizes = static(x, 0, indices.shape[-1])
    positive = np.where(indices < 0, indices + np.array(sizes), indices)
    rows = np.ravel_multi_index(np.moveaxis(positive, -1, 0), sizes).reshape(-1)
    taken = reshape(op, g, [rows.size, -1])
    merged = gather_transpose(op, taken, taken, -2, rows, int(np.prod(sizes)))
    return reshape_like(op, merged, x)


@register_vjp("Resize")
def resize(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """Separable and linear: along each axis, the transpose of its interpolation matrix."""
    x, y = node.inputs[0], node.outputs[0]
    if node.attributes.get_string("coordinate_transformation_mode", "") == "tf_crop_and_resize":
        raise NoRuleError(f"no rule for Resize by tf_crop_and_resize, at node {node.name!r}")
    if node.attributes.get_string("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise NoRuleError(f"no rule for Resize that keeps the aspect ratio, at node {node.name!r}")
    given = constant_of(node.inputs[2] if len(node.inputs) > 2 else None, "the scales of Resize")
    axes = axes_from_end(node.attributes.get_ints("axes", list(range(rank(x)))), rank(x))
    for i, axis in enumerate(axes):
        scale = float(given[i]) if given is not None and given.size else None
        if scale != 1.0 and (scale is not None or dims(x)[axis] != dims(y)[axis]):
            g = along_axis(op, g, x, axis, op.Transpose(interpolation(op, node, axis, scale)))
    return g


def interpolation(op: OpBuilder, node: Node, axis: int, scale: float | None) -> ir.Value:
    """The matrix [in, out] by which a Resize node interpolates one axis.

    It is what the operator makes of the unit vectors: a node on a constant, which the runtime folds
    when it loads, so that every mode, convention and rounding is the forward pass's own.
    """
    n, m = size_of(node.inputs[0], axis), size_of(node.outputs[0], axis)
    unit = constant(op, np.eye(n).reshape(1, n, 1, n), node.inputs[0])
    kept = {name: a.value for name, a in node.attributes.items() if name != "axes"}
    if scale is None:
        resized = op.Resize(unit, None, None, [1, n, 1, m], **kept)
    else:
        resized = op.Resize(unit, None, [1.0, 1.0, 1.0, scale], **kept)
    return reshape(op, resized, [n, m])


@register_vjp("DepthToSpace")
def depth_to_space(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    """SpaceToDepth, with its channels put in the order of the mode."""
    block = attribute(node, "blocksize", 1)
    z = op.SpaceToDepth(g, blocksize=block)
    if node.attributes.get_string("mode", "DCR") == "DCR":
        return z
    channels, height, width = static(node.inputs[0], 1)
    by_block = reshape(op, z, [-1, block * block, channels // block**2, height, width])
    return reshape_like(op, op.Transpose(by_block, perm=[0, 2, 1, 3, 4]), node.inputs[0])


@register_vjp("SpaceToDepth")
def space_to_depth(op: OpBuilder, node: Node, g: ir.Value) -> Cotangents:
    return op.DepthToSpace(g, blocksize=attribute(node, "blocksize", 1), mode="DCR")
