"""What a graph shows of boxes: where they lie when no layer with weights moves them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from onnxplain.export.autodiff import dependents, operator_name
from onnxplain.export.canonical.evaluate import concrete, evaluated
from onnxplain.export.canonical.opsets import OPSET
from onnxplain.export.objectives.structure import End
from onnxplain.export.operators import Kind, row_of

_LEARNT = (Kind.CONVOLUTION, Kind.MATRIX_PRODUCT, Kind.RECURRENT)
_LARGEST, _FAR = 20_000_000, 2_000  # elements of a value, and values, of what decodes boxes


def at_rest(entries: Sequence[End], image: ir.Value) -> np.ndarray | None:
    """[rows, entries]: what they are where each layer with weights gives 0; None if it cannot be
    told. Of decoded boxes that is their anchors."""
    computed: dict[ir.Value, np.ndarray | None] = {}
    columns = []
    for end in entries:
        levels = []
        for place in end.places:
            if place.value not in computed:
                computed[place.value] = _at_rest(place.value, image)
            if (found := computed[place.value]) is None:
                return None
            levels.append(np.take(found, place.index, place.axis).reshape(-1))
        columns.append(np.concatenate(levels))
    return np.stack(columns, 1) if len({column.size for column in columns}) == 1 else None


def _at_rest(value: ir.Value, image: ir.Value) -> np.ndarray | None:
    assert image.graph is not None
    active = dependents(image.graph, [image])
    given: dict[ir.Value, np.ndarray] = {}
    waiting, seen = [value], {value}
    while waiting:
        x = waiting.pop()
        node = x.producer()
        if x in active and (node is None or row_of(operator_name(node)).kind in _LEARNT):
            if (sizes := concrete(x, 1)) is None or x.dtype is None:
                return None
            given[x] = np.zeros(sizes, x.dtype.numpy())
        elif x in active:
            new = [y for y in _inputs(node) if y not in seen]
            waiting += new
            seen.update(new)
        if len(seen) > _FAR:
            return None
    return evaluated(value, OPSET, 1, given, _LARGEST)


def _inputs(node: ir.Node | None) -> Iterator[ir.Value]:
    return iter(()) if node is None else (x for x in node.inputs if x is not None)


def form_of(rest: np.ndarray | None, width: int, height: int) -> dict[str, str]:
    """What boxes are by their anchors [A, 4]: the settings `boxes` and `units`; empty if these do
    not tell.

    Anchors lie all over the image, row by row, and have few sizes: so whichever of the last two
    columns, or of their differences to the first two, take fewer values are the sizes, and the
    coordinate that changes more often is x.
    """
    if rest is None or not np.isfinite(rest).all():
        return {}
    spans = np.ptp(rest[:, :2], axis=0)
    if (spans >= np.array([width, height]) / 4).all() and spans.min() > _RELATIVE:
        units, scale = "pixels", float(max(width, height))
    elif (spans >= 1 / 4).all() and (spans <= _RELATIVE).all():
        units, scale = "relative", 1.0
    else:
        return {}
    rest = rest / scale
    first, last = rest[:, :2], rest[:, 2:]
    as_centres, as_corners = (
        len(np.unique(np.round(sizes, 4), axis=0)) for sizes in (last, last - first)
    )
    centres = first if as_centres < as_corners else (first + last) / 2
    changes = (np.abs(np.diff(centres, axis=0)) > 1e-6).sum(0)
    if as_centres == as_corners or changes[0] == changes[1]:
        return {}
    x_first = changes[0] > changes[1]
    if as_centres < as_corners:
        return {"boxes": "cxcywh", "units": units} if x_first else {}
    return {"boxes": "xyxy" if x_first else "yxyx", "units": units}


_RELATIVE = 2.0
