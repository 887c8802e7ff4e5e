"""Which layers an activation map may look at, and what finding their places takes."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import onnx
import onnx_ir as ir

from onnxplain.export import places
from onnxplain.export.grids import Layer, is_seen, placed
from onnxplain.export.layers import last_spatial, spatial_layer

BRANCHES = """
    then_branch = both () => (float[1, 2] t) {
        sum = Add (a, b)
        t = ReduceMean <keepdims = 0> (sum, axes)
    },
    else_branch = one () => (float[1, 2] e) {
        e = ReduceMean <keepdims = 0> (b, axes)
    }
"""


def graph_of(text: str) -> ir.Graph:
    head = '<ir_version: 9, opset_import: ["": 20]>'
    return ir.from_proto(onnx.parser.parse_model(f"{head} network {text}")).graph


def test_not_all_goes_through_a_layer_around_which_a_branch_reads() -> None:
    graph = graph_of(f"""(
        float[1, 3, 4, 4] image, float[2, 3, 3, 3] v, float[2, 2, 1, 1] w
    ) => (float[1, 2] logits) <
        float zero = {{0}}, int64[2] axes = {{2, 3}},
        float[1, 2, 4, 4] a, float[1, 2, 4, 4] b, float mean, bool bright
    > {{
        a = Conv <pads = [1, 1, 1, 1]> (image, v)
        b = Conv (a, w)
        mean = ReduceMean <keepdims = 0> (b)
        bright = Greater (mean, zero)
        logits = If (bright) <{BRANCHES}>
    }}""")
    assert last_spatial(graph).value.name == "a"


def test_what_a_body_alone_reads_is_seen() -> None:
    graph = graph_of("""(float[1, 3, 4, 4] image, bool given) => (float[1, 3, 4, 4] y) <
        float[1, 3, 4, 4] a
    > {
        a = Relu (image)
        y = If (given) <
            then_branch = as_it_is () => (float[1, 3, 4, 4] t) { t = Identity (a) },
            else_branch = turned () => (float[1, 3, 4, 4] e) { e = Neg (a) }
        >
    }""")
    found = places.of(graph, graph)
    a = graph[0].outputs[0]
    layer = placed(a, found[a])
    assert isinstance(layer, Layer)
    assert is_seen(graph, layer, found, graph.outputs)


def test_places_are_kept_as_long_as_they_are_needed() -> None:
    depth, side = 16, 48
    values = ["image", *(f"c{i}" for i in range(depth)), "y"]
    shape = f"float[1, 1, {side}, {side}]"
    convolutions = "\n".join(
        f"{y} = Conv <pads = [3, 3, 3, 3]> ({x}, w)" for x, y in pairwise(values)
    )
    known = ", ".join(f"{shape} {name}" for name in values[1:-1])
    graph = graph_of(f"""({shape} image, float[1, 1, 7, 7] w) => ({shape} y) < {known} > {{
        {convolutions}
    }}""")
    tracemalloc.start()
    try:
        layer = spatial_layer(graph, "y")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert layer.value.name == "y"
    assert most < 10 * (side * side * 6 * 8)
