"""Operators in forms that are seldom met, beside PyTorch or what is known of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

import onnxplain

Array = np.ndarray


def differentiated(
    text: str,
    folder: Path,
    feeds: dict[str, Array],
    weights: dict[str, Array] | None = None,
    opset: int = 20,
    **options: object,
) -> dict[str, Array]:
    """All that the file with derivatives gives of a graph written down as text."""
    head = f'<ir_version: 9, opset_import: ["": {opset}]>'
    model = onnx.parser.parse_model(f"{head} network {text}")
    for name, array in (weights or {}).items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    onnx.save(model, folder / "net.onnx")
    onnxplain.differentiate(folder / "net.onnx", folder / "d.onnx", **options)
    session = onnxruntime.InferenceSession(folder / "d.onnx", providers=["CPUExecutionProvider"])
    names = [y.name for y in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))


def noise(*shape: int) -> Array:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(("opset", "one_in"), [(11, 12), (13, 3)])
def test_hardmax_was_over_all_axes_until_opset_13(opset: int, one_in: int, tmp_path: Path) -> None:
    text = """(float[2, 3, 4] x) => (float[2, 3, 4] y) {
        h = Hardmax <axis = 1> (x)
        y = Mul (h, x)
    }"""
    x = noise(2, 3, 4)
    found = differentiated(text, tmp_path, {"x": x}, opset=opset)
    if one_in == 12:
        flat = x.reshape(2, 12)
        hot = (flat == flat.max(1, keepdims=True)).reshape(x.shape)
    else:
        hot = x == x.max(1, keepdims=True)
    np.testing.assert_array_equal(found["grad.x"], hot)


def test_a_value_that_no_pad_reads_is_no_obstacle(tmp_path: Path) -> None:
    text = """(float[1, 4] x) => (float[1, 7] y) {
        y = Pad <mode = "reflect", pads = [0, 1, 0, 2], value = 0.0> (x)
    }"""
    found = differentiated(text, tmp_path, {"x": noise(1, 4)}, opset=10)
    np.testing.assert_array_equal(found["grad.x"], [[1, 3, 2, 1]])


def test_a_maximum_that_adds_an_axis_is_no_relu(tmp_path: Path) -> None:
    text = "(float[3] x) => (float[1, 3] y) <float[1, 1] zero = {0}> { y = Max (x, zero) }"
    found = differentiated(text, tmp_path, {"x": np.array([-1, 2, 3], np.float32)})
    assert found["y"].shape == (1, 3)
    np.testing.assert_array_equal(found["grad.x"], [0, 1, 1])


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_the_gradient_by_the_first_state(kind: str, bidirectional: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer = getattr(torch.nn, kind)(2, 3, bidirectional=bidirectional)
    order = [0, 3, 1, 2] if kind == "LSTM" else [1, 0, 2]  # iofc, zrh

    def gates(name: str) -> Array:
        ends = ["", "_reverse"] if bidirectional else [""]
        each = (getattr(layer, f"{name}_l0{end}").detach().numpy() for end in ends)
        return np.stack([np.concatenate([np.split(w, len(order))[i] for i in order]) for w in each])

    bias = np.concatenate([gates("bias_ih"), gates("bias_hh")], axis=1)
    weights = {"W": gates("weight_ih"), "R": gates("weight_hh"), "B": bias}
    ways = 1 + bidirectional
    x, states = noise(4, 2, 2), [noise(ways, 2, 3), -noise(ways, 2, 3)][: 1 + (kind == "LSTM")]
    names = ["h", "c"][: len(states)]
    inputs = ", ".join(f"float[{ways}, 2, 3] {name}" for name in names)
    way = 'direction = "bidirectional", ' if bidirectional else ""
    reset = ", linear_before_reset = 1" if kind == "GRU" else ""
    text = f"""(float[4, 2, 2] x, {inputs}) => (float[4, {ways}, 2, 3] y) {{
        s = {kind} <{way}hidden_size = 3{reset}> (x, W, R, B, , {", ".join(names)})
        y = Mul (s, s)
    }}"""
    given = [torch.from_numpy(v).requires_grad_() for v in (x, *states)]
    state = tuple(given[1:]) if kind == "LSTM" else given[1]
    expected = torch.autograd.grad(layer(given[0], state)[0].square().sum(), given)
    feeds = dict(zip(["x", *names], (x, *states), strict=True))
    found = differentiated(text, tmp_path, feeds, weights)
    for name, gradient in zip(feeds, expected, strict=True):
        np.testing.assert_allclose(found[f"grad.{name}"], gradient, atol=1e-5, err_msg=name)


def test_an_average_whose_padding_counts_has_as_many_windows_as_pytorch_s(tmp_path: Path) -> None:
    """Shape inference counts one more, which would start in the padding."""
    text = """(float[1, 1, 9] x) => (float[1, 1, N] y) {
        h = AveragePool <kernel_shape = [2], pads = [1, 1], strides = [2], ceil_mode = 1,
                         count_include_pad = 1> (x)
        y = Mul (h, h)
    }"""
    x = torch.from_numpy(noise(1, 1, 9)).requires_grad_()
    pooled = torch.nn.functional.avg_pool1d(x, 2, 2, 1, ceil_mode=True).square()
    (expected,) = torch.autograd.grad(pooled.sum(), x)
    found = differentiated(text, tmp_path, {"x": x.detach().numpy()}, opset=19)
    np.testing.assert_allclose(found["y"], pooled.detach(), rtol=1e-5)
    np.testing.assert_allclose(found["grad.x"], expected, rtol=1e-5)


def test_a_seed_has_the_size_that_the_network_decides_upon(tmp_path: Path) -> None:
    text = "(float[4] x, bool[4] kept) => (float[M] y) { y = Compress (x, kept) }"
    kept, seed = np.array([True, False, True, True]), np.array([1, 2, 3], np.float32)
    feeds = {"x": noise(4), "kept": kept, "seed.y": seed}
    found = differentiated(text, tmp_path, feeds, seed="input")
    np.testing.assert_array_equal(found["grad.x"], [1, 0, 2, 3])


def test_what_an_operator_of_onnx_runtime_gives_has_a_derivative(tmp_path: Path) -> None:
    text = """(float[4] x) => (float[4] y) {
        h = com.microsoft.QuickGelu <alpha = 1.5> (x)
        y = com.microsoft.QuickGelu <alpha = 1.0> (h)
    }"""
    x = torch.from_numpy(noise(4)).requires_grad_()
    inner = x * torch.sigmoid(1.5 * x)
    (expected,) = torch.autograd.grad(torch.nn.functional.silu(inner).sum(), x)
    path = tmp_path / "net.onnx"
    head = '<ir_version: 9, opset_import: ["": 20, "com.microsoft": 1]>'
    onnx.save(onnx.parser.parse_model(f"{head} network {text}"), path)
    onnxplain.differentiate(path, tmp_path / "d.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "d.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(["grad.x"], {"x": x.detach().numpy()})
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_epsilon_of_a_layer_norm_of_before_opset_17(tmp_path: Path) -> None:
    """Then it was ONNX Runtime's own, 1e-5 if not given."""
    text = "(float[2, 4] x) => (float[2, 4] y) { y = LayerNormalization (x, scale) }"
    x = torch.from_numpy(1e-3 * noise(2, 4)).requires_grad_()
    square = torch.arange(8.0).reshape(2, 4)
    normal = torch.nn.functional.layer_norm(x, (4,), torch.ones(4))
    (expected,) = torch.autograd.grad((normal * square).sum(), x)
    weights, feeds = {"scale": np.ones(4, np.float32)}, {"x": x.detach().numpy()}
    feeds["seed.y"] = square.numpy()
    found = differentiated(text, tmp_path, feeds, weights, opset=16, seed="input")
    np.testing.assert_allclose(found["grad.x"], expected, rtol=1e-3, atol=1e-2)


DOUBLE = {
    "Attention": ("(x, x, x)", "double[1, 2, 3, 8]", 23),
    "RMSNormalization": ("(x, scale)", "double[3, 2]", 23),
    "DFT": ("<axis = 1> (x)", "double[1, 5, 1]", 17),
    "Swish": ("(x)", "double[5]", 24),
}


@pytest.mark.parametrize("name", DOUBLE)
def test_what_is_spelled_out_stays_in_float64(name: str, tmp_path: Path) -> None:
    arguments, shape, opset = DOUBLE[name]
    text = f"({shape} x) => (double[] y) {{ s = {name} {arguments} y = Mul (s, s) }}"
    x = noise(*map(int, shape[7:-1].split(","))).astype(np.float64)
    feeds, weights = {"x": x}, {"scale": np.array([1.0, 2.0])}
    found = differentiated(text, tmp_path, feeds, weights, opset=opset, check=False)
    source = ReferenceEvaluator(onnx.load(tmp_path / "net.onnx"))
    step = 1e-5 * np.random.default_rng(1).normal(size=x.shape)
    ahead, behind = (source.run(None, {"x": x + s})[0].sum() for s in (step, -step))
    assert found["grad.x"].dtype == np.float64
    assert (found["grad.x"] * step).sum() == pytest.approx((ahead - behind) / 2, rel=1e-6)


def products(x: Array) -> Array:
    """The Hessian of x₀ x₁ x₂."""
    a, b, c = x
    return np.array([[0, c, b], [c, 0, a], [b, a, 0]])


@pytest.mark.parametrize("x", [[0, 2, 3], [0, 0, 3], [0, 0, 0], [1, 2, 3]])
@pytest.mark.parametrize("form", ["ReduceProd", "ScatterElements", "CumProd"])
def test_a_product_has_its_second_derivative_at_0_too(
    form: str, x: list[float], tmp_path: Path
) -> None:
    node = {
        "ReduceProd": "y = ReduceProd <keepdims = 0> (x)",
        "ScatterElements": """
            y = ScatterElements <reduction = "mul"> (one, places, x)""",
        "CumProd": "all = CumProd (x, axis) y = Gather (all, last)",
    }[form]
    text = f"""(double[3] x) => (double[] y)
        <int64[3] places = {{0, 0, 0}}, double[1] one = {{1}}, int64 axis = {{0}},
         int64 last = {{2}}>
        {{ {node} }}"""
    at, v = np.array(x, float), np.array([1.0, -2.0, 0.5])
    feeds = {"x": at, "direction.x": v}
    found = differentiated(text, tmp_path, feeds, opset=26, second=True)
    np.testing.assert_allclose(found["hvp.x"], products(at) @ v)


def test_a_power_whose_exponent_is_0_passes_nothing_at_0(tmp_path: Path) -> None:
    text = "(double[3] x, double[3] e) => (double[3] y) { y = Pow (x, e) }"
    feeds = {"x": np.zeros(3), "e": np.array([0.0, 1.0, 2.0])}
    found = differentiated(text, tmp_path, feeds)
    np.testing.assert_array_equal(found["grad.x"], [0, 1, 0])


def test_weights_alone_in_8_bits_may_be_multiplied_by_rounded_numbers(tmp_path: Path) -> None:
    """As ONNX Runtime does with the network by itself, not where its weights have another use."""
    text = """(float[2, 4] x) => (float[2, 3] y) {
        w = DequantizeLinear <axis = 1> (whole, scale, zero)
        y = MatMul (x, w)
    }"""
    whole = np.random.default_rng(0).integers(-9, 9, size=(4, 3)).astype(np.int8)
    scale, zero = np.array([0.1, 0.2, 0.3], np.float32), np.array([1, 2, 3], np.int8)
    weights = {"whole": whole, "scale": scale, "zero": zero}
    found = differentiated(text, tmp_path, {"x": noise(2, 4)}, weights, opset=13)
    expected = ((whole.astype(float) - zero) * scale).sum(1)
    np.testing.assert_allclose(found["grad.x"], [expected] * 2, rtol=1e-5)
