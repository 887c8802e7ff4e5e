"""Lowered forms equal what they replace."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

import onnxplain
from onnxplain.export.check import Case, add_output, builder_of, finished, forward_model
from onnxplain.export.describe import on_processor
from onnxplain.export.lower import lower, stay_on_gpu
from onnxplain.reference.float64 import evaluate

from .graphs import explain, images, node, source_outputs, write
from .vjps.check import drawn, runtime
from .vjps.test_shaping import columns

seeds = st.integers(0, 999).map(np.random.default_rng)


@st.composite
def of_stride_one(draw: st.DrawFn) -> Case:
    """Pads up to what the kernel reaches, which is where a convolution would need negative ones."""
    rng, axes = draw(seeds), draw(st.integers(1, 3))
    group, outer = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    inner = 1 if draw(st.booleans()) else 2  # depthwise, or not
    kernel = [draw(st.integers(1, 3)) for _ in range(axes)]
    dilations = [draw(st.integers(1, 3)) for _ in range(axes)]
    reach = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
    size = [draw(st.integers(1, 3)) + r for r in reach]
    attributes: dict[str, Any] = {"group": group, "dilations": dilations, "kernel_shape": kernel}
    if draw(st.booleans()):
        attributes["pads"] = [draw(st.integers(0, r)) for r in reach * 2]
    if draw(st.booleans()):
        attributes["output_padding"] = [draw(st.integers(0, d - 1)) for d in dilations]
    x = rng.normal(size=[draw(st.integers(1, 2)), group * inner, *size])
    return Case("ConvTranspose", [x, rng.normal(size=[group * inner, outer, *kernel])], attributes)


def lowered(case: Case, dtype: ir.DataType = ir.DataType.DOUBLE) -> onnx.ModelProto:
    model = case.forward_model(dtype)
    nodes = list(model.graph)
    (y,) = model.graph.outputs
    model.graph.outputs[:] = []
    y.name = "before"
    add_output(model, y, "y0")
    lower(builder_of(model), nodes)
    stay_on_gpu(builder_of(model))
    return finished(model)


def assert_equal(case: Case, changed: onnx.ModelProto) -> None:
    """In float64, and in float32 by ONNX Runtime."""
    plain, feeds = finished(case.forward_model()), {"x0": case.inputs[0]}
    (expected,), (found,) = evaluate(plain, feeds), evaluate(changed, feeds)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    (single,) = runtime(lowered(case, ir.DataType.FLOAT), {"x0": feeds["x0"].astype(np.float32)})
    np.testing.assert_allclose(single, expected, atol=1e-4)


def operators(proto: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


@drawn(20)
@given(of_stride_one())
def test_a_transposed_convolution_of_stride_one_is_a_convolution(case: Case):
    changed = lowered(case)
    assert "ConvTranspose" not in operators(changed)
    assert_equal(case, changed)


@st.composite
def of_equal_strides(draw: st.DrawFn) -> Case:
    """Kernels near a multiple of the stride, with any pads that leave something."""
    rng, s = draw(seeds), draw(st.integers(2, 4))
    kernel = [draw(st.sampled_from([s, 2 * s - 1, 2 * s, 3 * s - 1, 3 * s])) for _ in range(2)]
    size = [draw(st.integers(2, 4)) for _ in range(2)]
    x = rng.normal(size=[draw(st.integers(1, 2)), 2, *size])
    attributes = {
        "strides": [s, s],
        "pads": [draw(st.integers(0, k - 1)) // 2 for k in kernel * 2],
        "output_padding": [draw(st.integers(0, s - 1)) for _ in range(2)],
    }
    return Case("ConvTranspose", [x, rng.normal(size=[2, 3, *kernel])], attributes)


@drawn(30)
@given(of_equal_strides())
def test_one_of_a_larger_stride_is_a_sub_pixel_convolution(case: Case):
    changed = lowered(case)
    assert_equal(case, changed)


@st.composite
def of_stride_and_dilation(draw: st.DrawFn) -> Case:
    """The dilation a multiple of the stride; in groups too."""
    rng, s, apart = draw(seeds), draw(st.integers(2, 3)), draw(st.integers(1, 2))
    group, kernel = draw(st.integers(1, 2)), [draw(st.integers(1, 3)) for _ in range(2)]
    reach = [(k - 1) * s * apart for k in kernel]
    attributes = {
        "strides": [s, s],
        "dilations": [s * apart] * 2,
        "group": group,
        "pads": [draw(st.integers(0, r)) // 2 for r in reach * 2],
        "output_padding": [draw(st.integers(0, s - 1)) for _ in range(2)],
    }
    size = [draw(st.integers(2, 4)) for _ in range(2)]
    x = rng.normal(size=[draw(st.integers(1, 2)), 2 * group, *size])
    return Case("ConvTranspose", [x, rng.normal(size=[2 * group, 3, *kernel])], attributes)


@drawn(20)
@given(of_stride_and_dilation())
def test_one_of_a_stride_and_a_dilation_is_a_dilated_convolution(case: Case):
    changed = lowered(case)
    assert "ConvTranspose" not in operators(changed)
    assert_equal(case, changed)


@pytest.mark.parametrize(
    ("kernel", "stride", "pad", "extra"),
    [
        pytest.param(7, 2, 3, 1, id="the first convolution of a ResNet"),
        pytest.param(11, 4, 2, 1, id="of AlexNet"),
        pytest.param(16, 16, 0, 0, id="the patches of a ViT"),
        pytest.param(2, 2, 0, 0, id="the downsampling of a ConvNeXt"),
    ],
)
def test_what_wastes_little_becomes_a_sub_pixel_convolution(kernel, stride, pad, extra):
    attributes = {
        "strides": [stride] * 2, "pads": [pad] * 4, "output_padding": [extra] * 2
    }  # fmt: skip
    inputs = [np.ones([1, 4, 6, 6]), np.ones([4, 3, kernel, kernel])]
    assert "ConvTranspose" not in operators(lowered(Case("ConvTranspose", inputs, attributes)))


@st.composite
def of_asymmetric_pads(draw: st.DrawFn) -> Case:
    """Unequal strides, so that no other form applies; pads beyond the kernel's reach too."""
    rng, axes = draw(seeds), draw(st.integers(2, 3))
    strides = [2, *draw(st.permutations([1, 3, 4]))][:axes]
    kernel = [draw(st.integers(1, 4)) for _ in range(axes)]
    size = [draw(st.integers(4, 5)) for _ in range(axes)]
    attributes = {
        "strides": strides,
        "pads": [draw(st.integers(0, min(k, s))) for k, s in zip(kernel, strides, strict=True)]
        + [draw(st.integers(0, 2)) for _ in range(axes)],
        "output_padding": [draw(st.integers(0, s - 1)) for s in strides],
    }
    x = rng.normal(size=[draw(st.integers(1, 2)), 2, *size])
    return Case("ConvTranspose", [x, rng.normal(size=[2, 3, *kernel])], attributes)


@drawn(30)
@given(of_asymmetric_pads())
def test_the_pads_of_a_transposed_convolution_are_symmetric(case: Case):
    changed = lowered(case)
    (node,) = (node for node in changed.graph.node if node.op_type == "ConvTranspose")
    (pads,) = (list(a.ints) for a in node.attribute if a.name == "pads")
    assert pads[: len(pads) // 2] == pads[len(pads) // 2 :]
    assert_equal(case, changed)


@drawn(20)
@given(columns())
def test_columns_are_put_into_an_image_by_a_transposed_convolution(case: Case):
    changed = lowered(case)
    assert "Col2Im" not in {node.op_type for node in changed.graph.node}
    assert_equal(case, changed)


def test_a_stride_two_convolutions_backward_needs_no_slice():
    """3 × 3, stride 2, padded by 1, of an even size: pads [1, 1, 0, 0] would be asymmetric."""
    inputs = [np.ones([1, 4, 6, 6]), np.ones([4, 3, 3, 3])]
    case = Case("ConvTranspose", inputs, {"strides": [2, 2], "pads": [1, 1, 0, 0]})
    changed = lowered(case)
    assert operators(changed).count("Slice") == 0
    assert_equal(case, changed)


@pytest.mark.parametrize(
    ("attributes", "bias"),
    [
        pytest.param({"strides": [2, 1]}, [], id="unequal strides"),
        pytest.param({"strides": [2, 2]}, [], id="a kernel that would be half zeros"),
        pytest.param({"strides": [3, 3], "dilations": [2, 1]}, [], id="stride and dilation"),
        pytest.param({"auto_pad": "SAME_UPPER"}, [], id="auto_pad"),
        pytest.param({"output_shape": [4, 4]}, [], id="output_shape"),
        pytest.param({}, [np.ones(3)], id="bias"),
    ],
)
def test_a_transposed_convolution_of_another_kind_stays(attributes, bias):
    x, w = np.ones([1, 4, 4, 4]), np.ones([4, 3, 3, 3])
    case = Case("ConvTranspose", [x, w, *bias], attributes)
    model = case.forward_model()
    before = list(model.graph)
    lower(builder_of(model), before)
    assert list(model.graph) == before


def test_the_weight_is_stored_once():
    """The flip is made of nodes on it, not of a copy."""
    w = np.random.default_rng(0).normal(size=[8, 8, 3, 3])
    proto = lowered(Case("ConvTranspose", [np.ones([1, 8, 6, 6]), w], {"pads": [1] * 4}))
    large = [t for t in proto.graph.initializer if np.prod(t.dims) >= w.size]
    assert [list(t.dims) for t in large] == [list(w.shape)]


def test_other_operators_stay():
    model = forward_model(lambda op, x: [op.Relu(x)], [["batch", 3]])
    before = list(model.graph)
    lower(builder_of(model), before)
    assert list(model.graph) == before


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        pytest.param({"pads": [1, 1, 0, 0]}, [6, 6], id="what output_padding makes up for"),
        pytest.param({"pads": [0, 0, 1, 1], "output_padding": [1, 1]}, [7, 6], id="what is cut"),
        pytest.param({"auto_pad": "SAME_UPPER"}, [6, 5], id="auto_pad"),
        pytest.param({"output_shape": [11, 12]}, [6, 6], id="output_shape"),
        pytest.param({"output_shape": [11, 12], "output_padding": [1, 1]}, [6, 6], id="of both"),
        pytest.param(
            {"output_shape": [7, 8], "strides": [1, 1], "dilations": [2, 2]}, [4, 4], id="dilated"
        ),
    ],
)
def test_a_networks_own_transposed_convolution_has_symmetric_pads(tmp_path, attributes, size):
    """To the bit what it was, and ONNX Runtime's CUDA provider has a kernel for it."""
    convolution = node("ConvTranspose", ["x", "w"], ["a"], **{"strides": [2, 2]} | attributes)
    mean = node("ReduceMean", ["z"], ["y"], keepdims=0, axes=[2, 3])
    x, w = images(2, 3, *size), images(3, 5, 3, 3, seed=1)
    nodes = [convolution, node("Relu", ["a"], ["z"]), mean]
    source = write(tmp_path / "net.onnx", nodes, {"w": w}, ["N", *x.shape[1:]], opset=13)
    found = explain(source, x).logits
    changed = onnx.load(tmp_path / "net.gradient.onnx")
    nodes = [n for n in changed.graph.node if n.op_type == "ConvTranspose"]
    for pads in [a.ints for n in nodes for a in n.attribute if a.name == "pads"]:
        assert pads[:2] == pads[2:]
    assert not {"auto_pad", "output_shape"} & {a.name for n in nodes for a in n.attribute}
    np.testing.assert_array_equal(found, *source_outputs(source, x))


@pytest.mark.parametrize(("operator", "last"), [("Sum", []), ("Mean", ["Div"])])
def test_several_are_added_one_by_one(operator: str, last: list[str]):
    def forward(op, *x):
        return [getattr(op, operator)(*x)]

    model = forward_model(forward, [["batch", 3]] * 3)
    stay_on_gpu(builder_of(model))
    changed = finished(model)
    assert operators(changed) == ["Add", "Add", *last]
    x = np.random.default_rng(0).normal(size=[3, 4, 3])
    expected = x.mean(0) if last else x.sum(0)
    feeds = {f"x{i}": each for i, each in enumerate(x)}
    np.testing.assert_allclose(*evaluate(changed, feeds), expected)


def test_what_was_replaced_keeps_nothing_alive(tmp_path):
    """Of several targets, one target's own sweep is gone: its last node had asymmetric pads."""
    weights = {"K": images(4, 3, 3, 3), "L": images(2, 4, 3, 3), "axes": np.array([2, 3])}
    file = write(
        tmp_path / "strided.onnx",
        [
            node("Conv", ["x", "K"], ["c"], strides=[2, 2], pads=[0, 0, 1, 1]),
            node("Relu", ["c"], ["r"]),
            node("Conv", ["r", "L"], ["d"]),
            node("ReduceMean", ["d", "axes"], ["y"], keepdims=0),
        ],
        weights,
        (None, 3, 8, 8),
    )
    onnxplain.export(file, tmp_path / "e.onnx", temperature=1.0, multi_target=True)
    graph = onnx.load(tmp_path / "e.onnx").graph
    needed = {output.name for output in graph.output}
    for made in reversed(graph.node):
        assert needed & set(made.output), made
        needed |= set(made.input)


def test_a_long_graph_takes_no_more_for_each_node():
    """Not a walk up to the image of each: what varies is found once."""
    long = 2_000

    def forward(op, x):
        for _ in range(long):
            x = op.MatMul(x, op.Atan(x))
        return [x]

    model = forward_model(forward, [[2, 2]])
    begun = time.process_time()
    lower(builder_of(model), list(model.graph))
    (note,) = on_processor(model.graph)
    assert note.startswith(f"{long} nodes run on the processor")
    assert time.process_time() - begun < 1
