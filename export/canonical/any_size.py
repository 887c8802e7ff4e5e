"""An image of any height and width: they are opened, and the sizes that follow from them named.

Nothing says of a file whether it takes other sizes than the one that it was written for. So shape
inference is asked with three sizes, of several kinds, of which one is odd and one a multiple of 32:
where they contradict the graph, its sides may have to be multiples of 2, 4, … 64, as those of a
network that shrinks its maps and joins them with what they were made of.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping

import onnx
import onnx_ir as ir
from onnx import helper
from onnx_ir.passes.common import _c_api_utils

from onnxplain.contract.pixels import HEIGHT, WIDTH
from onnxplain.errors import SourceError
from onnxplain.export.canonical.ends import image_axes
from onnxplain.export.operators import Axes, row_of
from onnxplain.export.tensors import USUAL, dims

BATCH = "batch"

_HEIGHTS, _WIDTHS = (225, 288, 427), (457, 352, 231)  # growing and shrinking, to tell them apart
_MULTIPLES = (1, 2, 4, 8, 16, 32, 64)
_BATCHES = (2, 103, 1)

Probes = Mapping[str, tuple[int, int, int]]
"""The name of an open size → three numbers for it."""


def open_size(graph: ir.Graph, image: ir.Value, usual: tuple[int, int] | None) -> None:
    """Leave an image's height and width open, by the names `HEIGHT` and `WIDTH`, and forget what
    was inferred of its old size.

    Args:
        usual: its size where one is needed; that of a file which has none is 224.
    """
    shape, axes = dims(image), image_axes(image)
    given = [shape[axis] for axis in axes[:2]]
    sizes = usual or [n if isinstance(n, int) else 224 for n in given]
    for axis, name in zip(axes, (HEIGHT, WIDTH), strict=False):
        shape[axis] = ir.SymbolicDim(name)
    if not isinstance(shape[axes[2]], int):
        shape[axes[2]] = 3
    if not isinstance(shape[0], int):
        shape[0] = ir.SymbolicDim(BATCH)
    image.shape = ir.Shape(shape)
    graph.meta[USUAL] = {BATCH: 1, **dict(zip((HEIGHT, WIDTH), sizes, strict=True))}
    for node in graph:
        for y in node.outputs:
            y.shape = None


def probes(model: ir.Model, image: ir.Value, simplify: Callable[[ir.Model], None]) -> Probes:
    """Sizes that the graph takes, and the usual one rounded up to one of them.

    Raises:
        SourceError: none that is odd, nor multiples of 2 to 64; with what ONNX says of them.
    """
    why = ""
    for multiple in _MULTIPLES:
        found = _multiples(multiple)
        wrong = [_contradiction(model, image, found, i, simplify) for i in range(3)]
        if not any(wrong):
            sizes = model.graph.meta[USUAL]
            sizes |= {name: _up(sizes[name], multiple) for name in (HEIGHT, WIDTH)}
            return found
        why = why or next(filter(None, wrong))
    raise SourceError(
        "the network takes images of one size alone: it holds numbers for that size, as a "
        "detector's anchors, a transformer's positions or a layer of all pixels are, and at "
        f"{why}; leave out size='any', or say which with size=HEIGHT"
    )


def multiple_of(found: Probes) -> int:
    """The number of which all sizes are to be multiples."""
    return next(m for m in _MULTIPLES if _multiples(m) == found)


def _multiples(multiple: int) -> Probes:
    sides = {HEIGHT: _HEIGHTS, WIDTH: _WIDTHS}
    rounded = {name: tuple(_up(n, multiple) for n in each) for name, each in sides.items()}
    return {BATCH: _BATCHES, **rounded}  # type: ignore[dict-item]


def _up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def _contradiction(
    model: ir.Model,
    image: ir.Value,
    sizes: Probes,
    index: int,
    simplify: Callable[[ir.Model], None],
) -> str:
    """What ONNX's shape inference says against one of the sizes; "" if nothing."""
    numbers = {name: each[index] for name, each in sizes.items()}
    try:
        wrong = _reshaped_to_another_number(_inferred(model, image, numbers, simplify))
    except Exception as error:
        wrong = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    return f"{numbers[HEIGHT]} × {numbers[WIDTH]} ONNX says {wrong!r}" if wrong else ""


def _inferred(
    model: ir.Model,
    image: ir.Value,
    numbers: Mapping[str, int],
    simplify: Callable[[ir.Model], None],
) -> onnx.ModelProto:
    """The graph with all shapes, for numbers in place of the open sizes; whatever ONNX raises of a
    contradiction."""
    copy = model.clone()
    given = next(x for x in copy.graph.inputs if x.name == image.name)
    given.shape = ir.Shape(
        [n if isinstance(n, int) else numbers[str(n.value)] for n in dims(given)]
    )
    simplify(copy)  # so that sizes which are computed are there
    for node in copy.graph:
        for y in node.outputs:
            y.shape = None

    def ask(proto: onnx.ModelProto) -> onnx.ModelProto:
        return onnx.shape_inference.infer_shapes(
            proto, check_type=True, strict_mode=True, data_prop=True
        )

    return _c_api_utils.call_onnx_api(ask, copy)


def least_side(
    model: ir.Model, image: ir.Value, multiple: int, simplify: Callable[[ir.Model], None]
) -> int:
    """The least that height and width may be: the first multiple of `multiple` from which on every
    window finds a place on what it slides over, and every value has elements."""

    def taken(times: int) -> bool:
        numbers = {BATCH: 1, **dict.fromkeys((HEIGHT, WIDTH), times * multiple)}
        try:
            found = _inferred(model, image, numbers, simplify)
        except Exception:
            return False
        return not _reshaped_to_another_number(found) and _has_places(found)

    most = max(model.graph.meta[USUAL][name] for name in (HEIGHT, WIDTH)) // multiple
    return multiple * (1 + bisect_left(range(1, most), True, key=taken))


def _has_places(model: onnx.ModelProto) -> bool:
    shapes = {
        value.name: [size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.value_info, *model.graph.output)
        if all(size.HasField("dim_value") for size in value.type.tensor_type.shape.dim)
    }
    computed = (name for node in model.graph.node for name in node.output)
    if not all(size > 0 for name in computed for size in shapes.get(name, ())):
        return False
    sliding = (n for n in model.graph.node if row_of(n.op_type).axes is Axes.WINDOW)
    return all(_fits(node, shapes) for node in sliding)


def _fits(node: onnx.NodeProto, shapes: Mapping[str, list[int]]) -> bool:
    """Whether a window lies within what it slides over and its border. ONNX's inference divides
    toward 0, and finds a place for one that reaches a little farther; which one has where sizes are
    rounded up."""
    given = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    kernel = given.get("kernel_shape") or shapes.get(node.input[1], [])[2:]
    sides = shapes.get(node.input[0], [])[2:]
    if not sides or given.get("ceil_mode") or given.get("auto_pad", b"").startswith(b"SAME"):
        return True
    pads = given.get("pads") or [0] * 2 * len(kernel)
    apart = given.get("dilations") or [1] * len(kernel)
    each = zip(sides, pads, pads[len(kernel) :], kernel, apart, strict=False)
    return all(side + before + after > (k - 1) * d for side, before, after, k, d in each)


def _reshaped_to_another_number(model: onnx.ModelProto) -> str:
    """The first Reshape to more or fewer elements than it is given, which inference lets pass."""
    graph = model.graph
    counts: dict[str, int] = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        sizes = value.type.tensor_type.shape.dim
        if all(size.HasField("dim_value") for size in sizes):
            counts[value.name] = math.prod(size.dim_value for size in sizes)
    for node in graph.node:
        if node.op_type == "Reshape" and {node.input[0], node.output[0]} <= counts.keys():
            before, after = counts[node.input[0]], counts[node.output[0]]
            if before != after:
                return f"Reshape {node.name!r} makes {after} elements of {before}"
    return ""
