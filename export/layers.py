"""Where a class activation map looks: a layer by its name, or the last of the image's places."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence

import onnx_ir as ir

from onnxplain.errors import SourceError
from onnxplain.export import places
from onnxplain.export.autodiff import between, dependents, depends, operator_name
from onnxplain.export.canonical.ends import image_size
from onnxplain.export.count import multiply_adds
from onnxplain.export.grids import Layer, is_seen, last_tokens, placed
from onnxplain.export.operators import Kind, row_of
from onnxplain.export.provenance import modules_of
from onnxplain.export.subgraphs import operands
from onnxplain.export.tensors import USUAL, usual
from onnxplain.suggest import nearest


def value_named(graph: ir.Graph, name: str) -> ir.Value:
    """The value of a layer, of a graph as its source has it.

    Args:
        name: of the value; else of the node that puts it out (its first output); else the path of
            the PyTorch module, where the exporter noted it (of its last call, the last node).

    Raises:
        SourceError: there is none.
    """
    values = {str(y.name): y for node in graph for y in node.outputs}
    nodes = {str(node.name): node.outputs[0] for node in graph if node.name}
    modules = {path: node.outputs[0] for node in graph for path in modules_of(node)}
    known = modules | nodes | values
    if name not in known:
        raise SourceError(f"the network has no layer {name!r}; {nearest(name, known)}")
    return known[name]


def home_of(value: ir.Value) -> str:
    """The innermost module in which a value is made, else its own name; others may share it."""
    node = value.producer()
    paths = modules_of(node) if node is not None else []
    return paths[-1] if paths else str(value.name)


def layer_name(value: ir.Value) -> str:
    """How a user can name a value: the innermost module that puts it out, else its own name.

    A module puts out what its last operation makes.
    """
    node, home = value.producer(), home_of(value)
    if node is None or node.graph is None or home not in modules_of(node):
        return str(value.name)
    *_, last = (other for other in node.graph if home in modules_of(other))
    return home if last is node else str(value.name)


def last_spatial(graph: ir.Graph, read: Sequence[ir.Value] = ()) -> Layer:
    """The last value [N, C, h, w], h·w > 1, that everything from image to logits goes through; of a
    network most of which comes after it, or which attends behind it, the last tokens that have a
    place in the image.

    Args:
        read: instead of the logits, what an objective reads. Weights come after the layer
            then: a map of scores, whose channels are classes, is none.

    Raises:
        SourceError: there is neither; or it attends behind it, and takes images of any size.
    """
    nodes = between(graph, graph.inputs, read or graph.outputs)
    spatial, attended = spatial_values(graph, read), _attended(graph, nodes)
    found = _places(graph, nodes) if not attended.isdisjoint(spatial) else {}
    spatial = [v for v in spatial if v not in attended or _is_map(placed(v, found.get(v)))]

    def rest(value: ir.Value) -> int:
        after = dependents(nodes, [value])
        return multiply_adds(node for node in nodes if depends(node, after))

    scores = set[ir.Value]()
    while read and spatial and not rest(spatial[-1]):
        scores.add(spatial.pop())
    near = bool(spatial) and 2 * rest(spatial[-1]) <= multiply_adds(nodes)
    ends = read or graph.outputs[:1]
    behind = _attended(graph, between(graph, spatial[-1:], ends)) if spatial else set()
    if not near or behind:
        found = found or _places(graph, nodes)
        cuts = cut_values(graph, lambda value: value not in scores, ends)
        tokens = last_tokens(graph, cuts, ends, found)
        if (
            tokens is not None
            and tokens.value not in spatial
            and (tokens.value in behind or not near)
        ):
            return tokens
    if behind and USUAL in graph.meta:
        raise SourceError(
            f"behind the last layer with spatial extent, {layer_name(spatial[-1])!r}, the network "
            "attends to tokens, and of images of any size nothing tells where in the image they "
            "are; give that or another with layer=, or a number in place of size='any'"
        )
    if near:
        return Layer(spatial[-1], spatial_axes(spatial[-1], graph.inputs[0]))
    if not spatial:
        raise SourceError(
            "the network has no layer with spatial extent that all of it goes through; give one "
            "with layer=, or choose another method than a class activation map"
        )
    last = spatial[-1]
    raise SourceError(
        f"the last layer with spatial extent that all of the network goes through, "
        f"{layer_name(last)!r} {last.shape}, comes before most of it, which branches there, or "
        "goes on with tokens of which the graph does not tell where in the image they are; give "
        "another with layer=, or choose another method than a class activation map"
    )


def _places(
    graph: ir.Graph, nodes: Sequence[ir.Node], kept: Collection[ir.Value] | None = None
) -> dict[ir.Value, places.Boxes]:
    """`places.of`; of images of any size, whose tokens have no one order, nothing."""
    return {} if USUAL in graph.meta else places.of(graph, nodes, kept)


def spatial_layer(graph: ir.Graph, name: str) -> Layer:
    """The layer of that name in a canonical graph, of whose elements the graph tells where in the
    image they are, or which looks like a map.

    Raises:
        SourceError: it is gone, or neither; the message names some layers with height and width. Or
            only what lies beside its tokens is read, as is a class token.
    """
    image, ends = graph.inputs[0], graph.outputs
    value = next((y for node in graph for y in node.outputs if y.name == name), None)
    why = "is not part of the simplified network"
    if value is not None:
        found = _places(graph, between(graph, [image], [value]), [value])
        layer = placed(value, found.get(value))
        if isinstance(layer, Layer):
            if layer.tokens is not None and not is_seen(graph, layer, found, ends):
                raise SourceError(
                    f"the layer {layer_name(value)!r} has {layer.tokens.in_words}, and of the grid "
                    "nothing is read by what comes after it: a map of it would be 0 everywhere. "
                    "Take an earlier layer, or leave it out for the last one that is read"
                )
            return layer
        if is_spatial(value) and value not in _attended(graph, graph):
            return Layer(value, spatial_axes(value, image))
        why = f"is {value.shape}, and not [N, C, h, w]; as tokens, {layer}"
    others = [f"{layer_name(v)} {v.shape}" for v in spatial_values(graph)[-6:]]
    raise SourceError(
        f"the layer's output {name!r} {why}; the last ones with height and width: "
        f"{', '.join(others) or 'none'}"
    )


def _attended(graph: ir.Graph, nodes: Iterable[ir.Node]) -> set[ir.Value | None]:
    """What comes behind a product of two values that depend on the image: where its axes look like
    those of a map, they may be heads and tokens."""
    nodes = list(nodes)
    active = dependents(graph, graph.inputs[:1])
    products = [
        y
        for node in nodes
        if row_of(operator_name(node)).kind is Kind.MATRIX_PRODUCT
        and sum(x in active for x in node.inputs) > 1
        for y in node.outputs
    ]
    return dependents(nodes, products)


def _is_map(found: Layer | str) -> bool:
    return isinstance(found, Layer) and found.tokens is None


def spatial_values(graph: ir.Graph, ends: Sequence[ir.Value] = ()) -> list[ir.Value]:
    """The values [N, C, h, w] or [N, h, w, C], h·w > 1, that all paths to the logits go through, or
    to other `ends`."""
    return cut_values(graph, is_spatial, ends)


def cut_values(
    graph: ir.Graph, wanted: Callable[[ir.Value], bool], ends: Sequence[ir.Value] = ()
) -> list[ir.Value]:
    """The values of which `wanted` is true and that all paths from image to logits go through, or
    to other `ends`."""
    image, ends = graph.inputs[0], ends or graph.outputs[:1]
    active = dependents(graph, [image])
    path = between(graph, [image], ends)
    last_use = dict.fromkeys(ends, len(path))
    for i, node in enumerate(path):
        for x in operands(node):
            if x is not None and x in active and x not in ends:
                last_use[x] = i
    found: list[ir.Value] = []
    open_until = {image: last_use[image]}
    for i, node in enumerate(path):
        open_until |= {y: last_use[y] for y in node.outputs if y in last_use}
        open_until = {value: end for value, end in open_until.items() if end > i}
        if len(open_until) == 1:
            (value,) = open_until
            if wanted(value):
                found.append(value)
    return found


def is_spatial(value: ir.Value) -> bool:
    """Whether it is [N, C, h, w] or [N, h, w, C] with h·w > 1, of known or usual sizes."""
    sizes = [] if value.shape is None else [n for n in usual(value)[1:] if n is not None]
    return (
        len(sizes) == 3
        and len(value.shape or ()) == 4
        and math.prod(sizes) > max(sizes[0], sizes[2])
    )


def spatial_axes(value: ir.Value, image: ir.Value) -> tuple[int, int, int]:
    """Which axes of a spatial value, from the end, are height, width and channels.

    Height and width are those two, last or before the last, that have the image's proportions;
    in doubt the last ones.
    """
    height, width, _ = image_size(image)
    sizes = [n or 1 for n in usual(value)]

    def distortion(axes: tuple[int, int, int]) -> float:
        h, w = sizes[axes[0]], sizes[axes[1]]
        return abs(math.log(h / height) - math.log(w / width))

    return min((-2, -1, -3), (-3, -2, -1), key=distortion)
