"""Free the batch of a network that was exported for a fixed one, where that is provably safe.

Proof by induction over the nodes: if every node that depends on the image treats the first axis
of what it gets as a batch's images, each by itself, then the batch may have any size. Sizes that
were written down as constants (a Reshape to [1, 1000]) are rewritten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import onnx_ir as ir

from onnxplain.export.autodiff import SHAPES, depends, operator_name
from onnxplain.export.operators import Axes, row_of
from onnxplain.export.shapes import infer_shapes
from onnxplain.export.tensors import array_of, attribute, axis_of, dims, rank
from onnxplain.initializers import initializer

Active = set[ir.Value | None]


def free_batch(model: ir.Model) -> str | None:
    """Make the first axis of the image and of all that depends on it dynamic.

    The graph is a simplified one, with the image as its only input and all shapes known.

    Returns:
        Why the batch stays fixed, or None.
    """
    graph = model.graph
    image = graph.inputs[0]
    batch = dims(image)[0]
    if not isinstance(batch, int):
        return None
    active: Active = {image}
    if (node := _mixing(graph, active, batch)) is not None:
        return f"the network fixes it, and {node.op_type} {node.name!r} may mix its images"
    for node in list(graph):
        axes = row_of(operator_name(node)).axes
        if axes in (Axes.RESHAPE, Axes.EXPANSION) and node.inputs[0] in active:
            _keep_first(graph, node, 0 if axes is Axes.RESHAPE else 1)
        if node.op_type == "Concat" and not active.isdisjoint(node.inputs):
            _repeat_constants(graph, node, active)
    for value in active - {image}:
        assert value is not None
        value.shape = None
    image.shape = ir.Shape([ir.SymbolicDim("batch"), *dims(image)[1:]])
    infer_shapes(model)
    return None


def mixes(nodes: Iterable[ir.Node], image: ir.Value) -> bool:
    """Whether nodes may mix the images of a batch, as far as it is fixed."""
    batch = dims(image)[0]
    return isinstance(batch, int) and _mixing(nodes, {image}, batch) is not None


def _mixing(nodes: Iterable[ir.Node], active: Active, batch: int) -> ir.Node | None:
    """The first node that may mix the images of a batch; None if none does.

    Args:
        active: the image. What depends on it is added.
    """
    for node in nodes:
        if not depends(node, active) and not (node.op_type in SHAPES and node.inputs[0] in active):
            continue
        if not _per_image(node, active, batch):
            return node
        active.update(node.outputs)
    return None


def _per_image(node: ir.Node, active: Active, batch: int) -> bool:
    check = _CHECKS.get(row_of(operator_name(node)).axes)
    shapes = [v.shape for v in (*node.inputs, *node.outputs) if v is not None and v.name]
    if check is None or any(shape is None for shape in shapes):
        return False
    firsts = [dims(y)[:1] for y in node.outputs if y.uses() or y.is_graph_output()]
    return all(first == [batch] for first in firsts) and check(node, active)


def _keep_first(graph: ir.Graph, node: ir.Node, first: int) -> None:
    """Put `first` for the batch into the constant shape that a node is given."""
    shape = _constant(node, 1)
    assert shape is not None
    assert node.inputs[1] is not None
    if shape[0] > 0:
        name = f"{node.outputs[0].name}.free_shape"
        free = initializer(graph, name, np.array([first, *shape[1:]], np.int64))
        node.replace_input_with(1, free)
        if node.op_type == "Reshape":
            node.attributes.add(ir.AttrInt64("allowzero", 0))  # 0 is the batch, not an empty axis


def _repeat_constants(graph: ir.Graph, node: ir.Node, active: Active) -> None:
    """[1, …] → [batch, …], for the inputs of a Concat that do not depend on the image."""
    for index, x in enumerate(node.inputs):
        if x is None or x in active:
            continue
        ones = ir.node("Constant", [], {"value": ir.tensor(np.ones(rank(x) - 1, np.int64))})
        batch = ir.node("Shape", [graph.inputs[0]], {"start": 0, "end": 1})
        shape = ir.node("Concat", [batch.outputs[0], ones.outputs[0]], {"axis": 0})
        expand = ir.node("Expand", [x, shape.outputs[0]])
        expand.outputs[0].shape = ir.Shape([ir.SymbolicDim("batch"), *dims(x)[1:]])
        expand.outputs[0].type = x.type
        graph.insert_before(node, [ones, batch, shape, expand])
        node.replace_input_with(index, expand.outputs[0])


def _constant(node: ir.Node, index: int) -> np.ndarray | None:
    return array_of(node.inputs[index]) if index < len(node.inputs) else None


def _first_input(node: ir.Node, active: Active) -> bool:
    """Only the first input depends on the image, and each of its images is taken by itself."""
    return node.inputs[0] in active and active.isdisjoint(node.inputs[1:])


def _elementwise(node: ir.Node, active: Active) -> bool:
    """Whatever broadcasts leaves the first axis alone."""
    width = rank(node.outputs[0])
    return all(
        rank(x) == width if x in active else rank(x) < width or dims(x)[0] == 1
        for x in node.inputs
        if x is not None
    )


def _matmul(node: ir.Node, active: Active) -> bool:
    """Rows of a matrix, or stacks of matrices; of these, constants have one for all images."""
    a, b = node.inputs[:2]
    assert a is not None
    assert b is not None
    width = rank(node.outputs[0])
    return all(
        rank(x) == width if x in active else rank(x) <= 2 or dims(x)[0] == 1 for x in (a, b)
    ) and (width > 2 or b not in active)


def _gemm(node: ir.Node, active: Active) -> bool:
    c = node.inputs[2] if len(node.inputs) > 2 else None
    rows = c is None or rank(c) < 2 or dims(c)[0] == 1
    return _first_input(node, active) and not attribute(node, "transA", 0) and rows


def _along(node: ir.Node, active: Active) -> bool:
    """The `axis` is not the first one."""
    x = node.inputs[0]
    assert x is not None
    return _first_input(node, active) and axis_of(node, x) != -rank(x)


def _matrices(node: ir.Node, active: Active) -> bool:
    """The last two axes are not the first one."""
    x = node.inputs[0]
    assert x is not None
    return _first_input(node, active) and rank(x) > 2


def _concat(node: ir.Node, active: Active) -> bool:
    """Constants beside it (a class token) are the same for each image, as in a batch of one."""
    same = all(x in active or (x is not None and dims(x)[0] == 1) for x in node.inputs)
    return same and attribute(node, "axis", 0) % rank(node.outputs[0]) != 0


def _by_axes(index: int) -> Callable[[ir.Node, Active], bool]:
    """The axes that input `index` lists, which must be given, are not the first one."""

    def check(node: ir.Node, active: Active) -> bool:
        of = node.outputs[0] if node.op_type == "Unsqueeze" else node.inputs[0]
        axes = _constant(node, index)
        assert of is not None
        return (
            _first_input(node, active)
            and axes is not None
            and all(axis % rank(of) for axis in axes.tolist())
        )

    return check


def _pad(node: ir.Node, active: Active) -> bool:
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        return _by_axes(3)(node, active)
    pads = _constant(node, 1)
    none = pads is not None and not pads[0] and not pads[len(pads) // 2]
    return _first_input(node, active) and none


def _reshape(node: ir.Node, active: Active) -> bool:
    """The first sizes agree: then the rest is reshaped image by image."""
    shape = _constant(node, 1)
    return _first_input(node, active) and shape is not None and len(shape) > 0


def _expand(node: ir.Node, active: Active) -> bool:
    shape = _constant(node, 1)
    x = node.inputs[0]
    assert x is not None
    return _first_input(node, active) and shape is not None and len(shape) == rank(x)


def _resize(node: ir.Node, active: Active) -> bool:
    return _first_input(node, active) and len(node.inputs) < 4  # scales, not sizes


_CHECKS: Mapping[Axes, Callable[[ir.Node, Active], bool]] = {
    Axes.ELEMENTWISE: _elementwise,
    Axes.IMAGES: _first_input,
    Axes.WINDOW: _first_input,
    Axes.ALONG: _along,
    Axes.CONCATENATION: _concat,
    Axes.LISTED: _by_axes(1),
    Axes.SLICE: _by_axes(3),
    Axes.MATRICES: _matrices,
    Axes.MATRIX_PRODUCT: _matmul,
    Axes.GEMM: _gemm,
    Axes.PADDING: _pad,
    Axes.RESIZE: _resize,
    Axes.TRANSPOSITION: lambda node, active: node.attributes.get_ints("perm", [-1])[0] == 0,
    Axes.RESHAPE: _reshape,
    Axes.FLATTENING: lambda node, active: attribute(node, "axis", 1) == 1,
    Axes.EXPANSION: _expand,
}
