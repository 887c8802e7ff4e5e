"""Receptive fields: which pixels a position of a layer sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxplain.contract.channels import Span
from onnxplain.export.autodiff import Node, operator_name
from onnxplain.export.canonical.ends import image_axes
from onnxplain.export.operators import Axes, Kind, row_of
from onnxplain.export.tensors import axis_of, dims, rank, static
from onnxplain.export.windows import window_of

_Spans = tuple[Span, Span]


@dataclass(frozen=True)
class _Seen:
    """What the positions of a value see: its axes of rows and columns, from the end; and how."""

    axes: tuple[int, int]
    spans: _Spans


_Fields = dict[ir.Value, _Seen | None]
"""None: each position may see every pixel. A value that is not here does not depend on them."""


def receptive_field(graph: ir.Graph, layer: ir.Value) -> _Spans | None:
    """Which pixels a position of `layer` sees, along rows and along columns; None for all of them.

    The graph is gone through from the image on, with each value's span: of the image itself,
    stride 1 and pixels 0 to 0. A window of stride s, kernel k, dilation d and b entries of padding
    before it makes of (stride, first, last)

        (stride · s, first − stride · b, last + stride · ((k − 1) d − b)),

    Araujo, Norris & Sim, "Computing Receptive Fields of Convolutional Neural Networks" (Distill
    2019). What is joined, by Add or Concat, sees what any of them does. Padding is counted, so a
    span may reach out of the picture.

    What is the same at all positions is not counted: a gate of one value per channel (squeeze and
    excitation), the statistics of a normalisation. It makes a channel larger or smaller everywhere,
    and says nothing of where.

    Everything else that brings positions together (attention, a Softmax or MatMul over them, a
    Reshape that takes the rows apart, resampling) sees all.
    """
    image = graph.inputs[0]
    axes = image_axes(image)
    itself = Span(1, 0, 0)
    fields: _Fields = {image: _Seen((axes[0] - 4, axes[1] - 4), (itself, itself))}
    for node in graph:
        active = [x for x in node.inputs if x is not None and x in fields]
        if not active:
            continue
        row = row_of(operator_name(node))
        pointwise = row.kind is Kind.NORMALISATION  # its statistics do not count
        rule = _elementwise if pointwise else _RULES.get(row.axes, _everywhere)
        fields |= {y: rule(node, y, active, fields) for y in node.outputs if y.shape is not None}
    seen = fields.get(layer)
    return None if seen is None else seen.spans


_Rule = Callable[[Node, ir.Value, Sequence[ir.Value], _Fields], _Seen | None]


def _everywhere(
    node: Node, y: ir.Value, active: Sequence[ir.Value], fields: _Fields
) -> _Seen | None:
    return None


def _window(node: Node, y: ir.Value, active: Sequence[ir.Value], fields: _Fields) -> _Seen | None:
    x = node.inputs[0]
    seen = fields.get(x) if x is not None else None
    if x is None or active != [x] or seen is None or seen.axes != (-2, -1):
        return None
    kernel = None
    if node.op_type == "Conv":
        assert node.inputs[1] is not None
        kernel = static(node.inputs[1], 2)
    window = window_of(node, x, y, kernel)
    rows, columns = (
        Span(
            span.stride * window.strides[i],
            span.first - span.stride * window.before[i],
            span.last
            + span.stride * ((window.kernel[i] - 1) * window.dilations[i] - window.before[i]),
        )
        for i, span in enumerate(seen.spans)
    )
    return _Seen(seen.axes, (rows, columns))


def _elementwise(
    node: Node, y: ir.Value, active: Sequence[ir.Value], fields: _Fields
) -> _Seen | None:
    return _joined(y, active, fields)


def _joined(y: ir.Value, active: Sequence[ir.Value], fields: _Fields) -> _Seen | None:
    """What any of `active` sees, save what is stretched to all positions of y."""
    seen = next((s for x in active if (s := fields[x]) is not None and _spans(x, y, s.axes)), None)
    if seen is None:
        return None
    spans = seen.spans
    for x in active:
        if not _spans(x, y, seen.axes) and _is_stretched(x, seen.axes):
            continue
        other = fields[x]
        if other is None or other.axes != seen.axes:
            return None
        rows, columns = (_union(a, b) for a, b in zip(spans, other.spans, strict=True))
        if rows is None or columns is None:
            return None
        spans = rows, columns
    return _Seen(seen.axes, spans)


def _spans(x: ir.Value, y: ir.Value, axes: tuple[int, int]) -> bool:
    """Whether x has all the rows and columns of y."""
    return rank(x) >= -min(axes) and all(dims(x)[axis] == dims(y)[axis] for axis in axes)


def _is_stretched(x: ir.Value, axes: tuple[int, int]) -> bool:
    return all(rank(x) < -axis or dims(x)[axis] == 1 for axis in axes)


def _union(a: Span, b: Span) -> Span | None:
    if a.stride != b.stride:
        return None
    return Span(a.stride, min(a.first, b.first), max(a.last, b.last))


def _transpose(
    node: Node, y: ir.Value, active: Sequence[ir.Value], fields: _Fields
) -> _Seen | None:
    seen = fields[active[0]]
    if seen is None:
        return None
    size = rank(y)
    order = list(node.attributes.get_ints("perm", list(range(size))[::-1]))
    rows, columns = (order.index(axis + size) - size for axis in seen.axes)
    return _Seen((rows, columns), seen.spans)


def _reshape(node: Node, y: ir.Value, active: Sequence[ir.Value], fields: _Fields) -> _Seen | None:
    """Where rows and columns, and all before them or all behind, stay."""
    (x,), seen = active, fields[active[0]]
    if seen is None:
        return None
    before, after = dims(x), dims(y)
    outer = min(seen.axes)
    if before[outer:] == after[outer:]:
        return seen
    inner = len(before) + max(seen.axes) + 1
    if before[1:inner] != after[1:inner]:
        return None
    moved = len(before) - len(after)
    return _Seen((seen.axes[0] + moved, seen.axes[1] + moved), seen.spans)


def _matmul(node: Node, y: ir.Value, active: Sequence[ir.Value], fields: _Fields) -> _Seen | None:
    """A matrix on the channels, which are last."""
    seen = fields[active[0]]
    alone = len(active) == 1 and active[0] is node.inputs[0]
    return seen if alone and seen is not None and -1 not in seen.axes else None


def _along_channels(
    node: Node, y: ir.Value, active: Sequence[ir.Value], fields: _Fields
) -> _Seen | None:
    """What works along one axis, if that is neither of rows nor of columns."""
    seen = _joined(y, active, fields)
    same = seen is not None and all(rank(x) == rank(y) for x in active)
    return seen if seen and same and axis_of(node, y) not in seen.axes else None


_RULES: Mapping[Axes, _Rule] = {
    Axes.ELEMENTWISE: _elementwise,
    Axes.WINDOW: _window,
    Axes.TRANSPOSITION: _transpose,
    Axes.RESHAPE: _reshape,
    Axes.MATRIX_PRODUCT: _matmul,
    Axes.ALONG: _along_channels,
    Axes.CONCATENATION: _along_channels,
}
