"""What the canonical form makes of a graph, it makes of the bodies of control flow that stay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import numpy_helper, parser
from torch import Tensor
from torch.nn import functional

import onnxplain
from onnxplain.errors import NoRuleError
from onnxplain.export.count import multiply_adds
from onnxplain.reference.derivatives import is_quantised
from onnxplain.runtime import Explanation

from .graphs import images, source_outputs

X = images(2, 3, 5, 5)
K = images(3, 3, 3, 3, seed=1)
W = images(3, 4, seed=2)


def network(body: str, **more: np.ndarray) -> onnx.ModelProto:
    """`logits` of `x` [N, 3, 5, 5], in ONNX's own notation; `bright` if its sum is above 0."""
    model = parser.parse_model(f"""
        <ir_version: 9, opset_import: ["" : 20]>
        network (float[N, 3, 5, 5] x) => (float[N, 4] logits) {{
            sum = ReduceSum <keepdims = 0> (x)
            bright = Greater (sum, zero)
            {body}
        }}""")
    numbers = {"zero": np.float32(0), "same": [0], "three": [3], "two": [2], "last": [2]}
    tensors = {"K": K, "W": W, **numbers, **more}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(a), name) for name, a in tensors.items()
    )
    return model


def explained(
    model: onnx.ModelProto, path: Path, x: np.ndarray, method: str = "gradient"
) -> Explanation:
    """Of class 1; the logits are those of ONNX Runtime on the source."""
    onnx.save(model, path)
    made = path.with_suffix(".explain.onnx")
    onnxplain.export(path, made, method=method)
    found = onnxplain.load(made, threads=1)(x, 1)
    np.testing.assert_allclose(found.logits, source_outputs(path, x)[0], rtol=1e-4, atol=1e-5)
    return found


def gradient(function: Callable[[Tensor], Tensor], x: np.ndarray) -> np.ndarray:
    leaf = torch.tensor(x, requires_grad=True)
    function(leaf)[:, 1].sum().backward()
    assert leaf.grad is not None
    return leaf.grad.numpy()


POOL = "MaxPool <kernel_shape = [2, 2], strides = [2, 2], pads = [1, 1, 1, 1], ceil_mode = 1>"
SAME = 'ConvTranspose <auto_pad = "SAME_UPPER", strides = [2, 2], output_padding = [1, 1]>'


def mean_of(value: str, result: str) -> str:
    """Over height and width, as exporters write view(n, 3, h * w).mean(2)."""
    return f"""
        sizes = Shape <start = 2> ({value})
        area = ReduceProd <keepdims = 1> (sizes)
        rows = Concat <axis = 0> (same, three, area)
        each = Reshape ({value}, rows)
        {result} = ReduceMean <keepdims = 0> (each, last)"""


def pooled(x: Tensor) -> Tensor:
    return functional.max_pool2d(x.tanh(), 2, 2, 1, ceil_mode=True).mean((2, 3))


def doubled(x: Tensor) -> Tensor:
    weight = torch.tensor(K)
    y = functional.conv_transpose2d(x, weight, stride=2, padding=1, output_padding=1)
    return y.tanh().mean((2, 3))


BRANCHES = f"""
    m = If (bright) <
        then_branch = p () => (float[N, 3] m) {{ t = Tanh (x) u = {POOL} (t) {mean_of("u", "m")} }},
        else_branch = q () => (float[N, 3] m) {{
            t = {SAME} (x, K) u = Tanh (t) {mean_of("u", "m")} }}>
    logits = MatMul (m, W)"""


@pytest.mark.parametrize("bright", [1, -1])
def test_sizes_that_inference_misreads_are_right_in_branches(bright: int, tmp_path: Path) -> None:
    """A ceil_mode whose last window would begin in the padding, and a padding to twice the size."""
    x = bright * np.abs(X)
    found = explained(network(BRANCHES), tmp_path / "if.onnx", x)
    branch = pooled if bright > 0 else doubled
    expected = gradient(lambda leaf: branch(leaf) @ torch.tensor(W), x)
    np.testing.assert_allclose(found.pullback, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rounds", ["two", "many"])
def test_they_are_in_rounds(rounds: str, tmp_path: Path) -> None:
    """s ← s + s · pooled(x + s): written out, or as many as the image says."""
    body = f"""
        start = ReduceMean <keepdims = 1> (x, last_two)
        floor = Cast <to = 7> (bright)
        many = Add (floor, one)
        rounds = Squeeze ({rounds})
        s = Loop (rounds, , start) <body = b (int64 i, bool c, float[N, 3, 1, 1] a) => (bool d,
            float[N, 3, 1, 1] e) {{
            d = Identity (c) z = Add (x, a) t = Tanh (z) u = {POOL} (t) {mean_of("u", "v")}
            w = Unsqueeze (v, last_two) y = Mul (a, w) e = Add (a, y) }}>
        flat = Flatten (s)
        logits = MatMul (flat, W)"""
    model = network(body, last_two=np.array([2, 3]), one=np.array(1))
    x = np.abs(X)
    found = explained(model, tmp_path / "loop.onnx", x)

    def twice(leaf: Tensor) -> Tensor:
        s = leaf.mean((2, 3), keepdim=True)
        for _ in range(2):
            s = s + s * pooled(leaf + s)[:, :, None, None]
        return s.flatten(1) @ torch.tensor(W)

    np.testing.assert_allclose(found.pullback, gradient(twice, x), rtol=1e-4, atol=1e-5)


STATIC = "t = QuantizeLinear (c, scale, least) u = DequantizeLinear (t, scale, least)"
DYNAMIC = "t, s, z = DynamicQuantizeLinear (c) u = DequantizeLinear (t, s, z)"


@pytest.mark.parametrize(
    ("quantiser", "layer", "method"),
    [
        (STATIC, "within", "excitation"),
        (STATIC, "around", "excitation"),
        (DYNAMIC, "within", "gradient"),
    ],
    ids=["static", "behind a layer around it", "dynamic"],
)
def test_quantisers_in_a_branch_are_those_of_a_graph(
    quantiser: str, layer: str, method: str, tmp_path: Path
) -> None:
    """A quantiser that does a ReLU's work shows it; beside the same network without the If."""
    conv, rest = "c = Conv (x, K)", f"{quantiser} m = GlobalAveragePool (u)"
    around, within = ("", conv + rest) if layer == "within" else (conv, rest)
    chosen = f"""
        {around}
        m = If (bright) <then_branch = p () => (float[N, 3, 1, 1] m) {{ {within} }},
            else_branch = q () => (float[N, 3, 1, 1] m) {{ m = GlobalMaxPool (x) }}>"""
    tail = "flat = Flatten (m) logits = MatMul (flat, W)"
    numbers = {"scale": np.float32(0.05), "least": np.uint8(0)}
    x, path = np.abs(X[:1]), tmp_path / "if.onnx"
    ours = explained(network(chosen + tail, **numbers), path, x, method)
    alone = network(conv + rest + tail, **numbers)
    twin = explained(alone, tmp_path / "alone.onnx", x, method)
    np.testing.assert_allclose(ours.pullback, twin.pullback, rtol=1e-5, atol=1e-7)
    assert ours.pullback.any()
    made = path.with_suffix(".explain.onnx")
    metadata = onnxplain.load(made, threads=1).metadata
    assert any(note.startswith("quantised") for note in metadata.notes)
    assert is_quantised(made) == ("Relu" in metadata.replaced) == (quantiser == STATIC)


def test_training_mode_in_a_branch_is_refused_before_it_is_fused(tmp_path: Path) -> None:
    body = """
        m = If (bright) <
            then_branch = p () => (float[N, 3] m) { c = Conv (x, K)
                u, a, v = BatchNormalization <training_mode = 1> (c, ones, none, none, ones)
                g = GlobalAveragePool (u) m = Flatten (g) },
            else_branch = q () => (float[N, 3] m) { g = GlobalMaxPool (x) m = Flatten (g) }>
        logits = MatMul (m, W)"""
    ones = np.ones(3, np.float32)
    onnx.save(network(body, ones=ones, none=0 * ones), tmp_path / "if.onnx")
    with pytest.raises(NoRuleError, match="in training mode; export the network in evaluation"):
        onnxplain.export(tmp_path / "if.onnx", tmp_path / "e.onnx")


def test_what_a_body_has_named_like_something_around_it_is_another_value(tmp_path: Path) -> None:
    """`logits` within are the maxima; ONNX's inference tells values by their names alone."""
    body = """
        m = If (bright) <
            then_branch = p () => (float[N, 3] t) {
                logits = GlobalMaxPool (x) t = Flatten (logits) },
            else_branch = q () => (float[N, 3] u) { m = GlobalAveragePool (x) u = Flatten (m) }>
        logits = MatMul (m, W)"""
    x = np.abs(X)
    found = explained(network(body), tmp_path / "if.onnx", x)
    expected = gradient(lambda leaf: leaf.amax((2, 3)) @ torch.tensor(W), x)
    np.testing.assert_allclose(found.pullback, expected, rtol=1e-5)


COSTS = {
    "If (c) <then_branch = p () => (float[N, 8] m) { m = MatMul (x, A) }, else_branch = "
    "q () => (float[N, 8] m) { n = MatMul (x, A) m = MatMul (n, A) }>": 128,
    "Loop (many, , x) <body = b (int64 i, bool d, float[N, 8] s) => (bool d, float[N, 8] t) "
    "{ t = MatMul (s, A) }>": 5 * 64,
    "Loop (, c, x) <body = b (int64 i, bool d, float[N, 8] s) => (bool d, float[N, 8] t) "
    "{ t = MatMul (s, A) }>": 64,
    "Scan <num_scan_inputs = 1, body = b (float[N, 8] s, float[8, 8] a) => (float[N, 8] t) "
    "{ t = MatMul (s, a) }> (x, As)": 7 * 64,
}


@pytest.mark.parametrize(("node", "cost"), COSTS.items(), ids=["If", "Loop", "while", "Scan"])
def test_multiply_adds_are_those_of_bodies_as_often_as_they_run(node: str, cost: int) -> None:
    model = parser.parse_model(f"""
        <ir_version: 9, opset_import: ["" : 20]>
        network (float[N, 8] x, bool c, float[7, 8, 8] As) => (float[N, 8] y)
        <float[8, 8] A, int64 many = {{5}}> {{ y = {node} }}""")
    model.graph.initializer.append(numpy_helper.from_array(np.ones((8, 8), np.float32), "A"))
    inferred = onnx.shape_inference.infer_shapes(model)
    assert multiply_adds(ir.from_proto(inferred).graph) == cost


def test_the_adjoint_of_a_loop_costs_as_many_rounds(tmp_path: Path) -> None:
    """A kept Loop of 1001 products [3] · [3, 3], and the head: gone back through once."""
    body = """
        g = GlobalAveragePool (x)
        f = Flatten (g)
        s = Loop (long, , f) <body = b (int64 i, bool c, float[N, 3] a) => (bool d, float[N, 3] e)
            { d = Identity (c) e = MatMul (a, S) }>
        logits = MatMul (s, W)"""
    weights = {"S": np.eye(3, dtype=np.float32), "long": np.array(1001)}
    onnx.save(network(body, **weights), tmp_path / "loop.onnx")
    onnxplain.export(tmp_path / "loop.onnx", tmp_path / "e.onnx", method="gradient", check=False)
    cost = onnxplain.load(tmp_path / "e.onnx", threads=1).metadata.multiply_adds
    assert cost == {"forward": 1001 * 9 + 12, "explain": 2 * (1001 * 9 + 12)}
