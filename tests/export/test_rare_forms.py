"""Forms of operators that few files have: their derivatives beside PyTorch's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor

import onnxplain
from onnxplain.errors import NoRuleError, SourceError

from .test_differentiate import EXACT, error, node, run

Array = np.ndarray


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def parsed(path: Path, text: str, opset: int = 20, more: str = "", imports: str = "") -> Path:
    """An ONNX file of the graph that is written so, whatever the shape of its outputs."""
    head = f'<ir_version: 10, opset_import: ["": {opset}{imports}]>'
    model = onnx.parser.parse_model(f"{head} g {text} {more}")
    for y in model.graph.output:
        y.type.tensor_type.ClearField("shape")
    onnx.save(model, path)
    return path


def drawn(random: np.random.Generator, *shape: int, dtype: type = np.float64) -> Tensor:
    return torch.from_numpy(random.normal(size=shape).astype(dtype))


# ----- a value by itself -----

SINES = """(double[2, 3] x) => (double[2, 3] y) <double[2, 3] w = {1, 2, 3, 4, 5, 6}> {
    h = Sin(x)
    end = Cos(h)
    y = Mul(h, w)
}"""


@pytest.mark.parametrize("name", ["x", "h", "end", "y", "w"])
def test_a_value_by_itself_has_its_cotangent_for_a_gradient(
    name: str, tmp_path: Path, random: np.random.Generator
) -> None:
    """Of an input, a value within, one that nothing reads, an output, a weight."""
    source, path = parsed(tmp_path / "m.onnx", SINES), tmp_path / "d.onnx"
    x, g = drawn(random, 2, 3), drawn(random, 2, 3)
    onnxplain.differentiate(source, path, of=name, wrt=name, seed="input")
    found = run(path, x=x, **{f"seed__{name}": g})
    np.testing.assert_array_equal(found[f"grad.{name}"], g)
    onnxplain.differentiate(source, path, of=name, wrt=name, jacobian=True)
    identity = run(path, x=x)[f"jacobian.{name}.{name}"]
    np.testing.assert_array_equal(identity, np.eye(6).reshape(2, 3, 2, 3))


def test_an_output_by_itself_and_by_what_it_is_made_of(
    tmp_path: Path, random: np.random.Generator
) -> None:
    source, path, x = parsed(tmp_path / "m.onnx", SINES), tmp_path / "d.onnx", drawn(random, 2, 3)
    onnxplain.differentiate(source, path, of="y", wrt=["y", "h", "x"])
    found, w = run(path, x=x), torch.arange(1.0, 7.0, dtype=torch.float64).reshape(2, 3)
    np.testing.assert_array_equal(found["grad.y"], 1)
    assert error(found["grad.h"], w) < EXACT
    assert error(found["grad.x"], w * torch.cos(x)) < EXACT


# ----- splits of what is open -----


@pytest.mark.parametrize(
    ("split", "sizes"),
    [
        ("a, b = Split<axis = 0, num_outputs = 2>(x)", [3, 2]),
        ("a, c, b = Split<axis = 0, num_outputs = 3>(x)", [2, 2, 1]),
        ("a, b = Split<axis = 0>(x, known)", [1, 4]),
        ("a, b = Split<axis = 0>(x, given)", [2, 3]),
    ],
)
def test_the_parts_of_an_open_axis_are_put_together(
    split: str, sizes: list[int], tmp_path: Path, random: np.random.Generator
) -> None:
    """As many as the input has, of sizes that differ, and one of them without a cotangent."""
    constants = "<int64[2] known = {1, 4}>"
    text = f"(double[N, 3] x, int64[2] given) => (double a, double b) {constants} {{ {split} }}"
    source, path = parsed(tmp_path / "m.onnx", text), tmp_path / "d.onnx"
    onnxplain.differentiate(source, path, of=["a", "b"], seed="input")
    x, a, b = drawn(random, 5, 3), drawn(random, sizes[0], 3), drawn(random, sizes[-1], 3)
    found = run(path, x=x, given=np.array([2, 3]), seed__a=a, seed__b=b)
    between = torch.zeros(5 - len(a) - len(b), 3, dtype=torch.float64)
    assert error(found["grad.x"], torch.cat([a, between, b])) == 0


# ----- what attention shows beside its result -----

HIDDEN = np.array([[1, 1, 0, 1, 0], [0, 0, 0, 0, 0], [1, 0, 1, 1, 1], [1, 1, 1, 1, 0]], bool)


@pytest.mark.parametrize("mode", range(4))
@pytest.mark.parametrize(
    ("attributes", "mask"),
    [
        ("is_causal = 1, softcap = 2.0", None),
        ("is_causal = 1, softcap = 2.0", HIDDEN),
        ("scale = 0.7", np.linspace(-1, 1, 20, dtype=np.float32).reshape(4, 5)),
    ],
)
def test_what_attention_shows_beside_its_result_has_a_derivative(
    mode: int, attributes: str, mask: Array | None, tmp_path: Path, random: np.random.Generator
) -> None:
    """0: scores; 1: capped; 2: masked too, of which those masked do not move; 3: the weights."""
    heads = ", ".join(f"float[1, 2, {n}, 3] {name}" for name, n in (("q", 4), ("k", 5), ("v", 5)))
    given = "" if mask is None else ", m"
    kind = "" if mask is None else f", {'bool' if mask.dtype == bool else 'float'}[4, 5] m"
    text = f"""({heads}{kind}) => (float y, float shown) {{
        y, , , shown = Attention<qk_matmul_output_mode = {mode}, {attributes}>(q, k, v{given})
    }}"""
    source, path = parsed(tmp_path / "m.onnx", text, opset=24), tmp_path / "d.onnx"
    made = onnxplain.differentiate(
        source, path, of=["y", "shown"], wrt=["q", "k", "v"], seed="input"
    )
    assert made.notes == ()  # both outputs are those of ONNX Runtime
    allowed = torch.ones(4, 5, dtype=torch.bool)
    if "is_causal" in attributes:
        allowed = allowed.tril()
    if mask is not None and mask.dtype == bool:
        allowed &= torch.from_numpy(mask)
    bias = torch.from_numpy(mask) if mask is not None and mask.dtype != bool else 0.0

    def attention(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        capped = scores = q @ k.transpose(-1, -2) * (0.7 if "scale" in attributes else 3**-0.5)
        if "softcap" in attributes:
            capped = 2 * torch.tanh(scores / 2)
        masked = (capped + bias).masked_fill(~allowed, -torch.inf)
        some = allowed.any(-1, keepdim=True)
        weights = torch.softmax(masked.masked_fill(~some, 0), -1).masked_fill(~some, 0)
        return weights @ v, [scores, capped, masked, weights][mode]

    q, k, v = (drawn(random, 1, 2, n, 3, dtype=np.float32) for n in (4, 5, 5))
    (y, shown), pull = torch.func.vjp(attention, q, k, v)
    gs = drawn(random, *y.shape, dtype=np.float32), drawn(random, *shown.shape, dtype=np.float32)
    feeds: dict[str, Any] = {"q": q, "k": k, "v": v, "seed__y": gs[0], "seed__shown": gs[1]}
    found = run(path, **feeds, **({} if mask is None else {"m": mask}))
    np.testing.assert_allclose(found["shown"], shown, rtol=1e-5, atol=1e-5)
    for name, expected in zip("qkv", pull(gs), strict=True):
        assert error(found[f"grad.{name}"], expected) < 1e-5


# ----- a line that is sampled -----


@pytest.mark.parametrize(
    ("mode", "padding", "align_corners"),
    [
        *(("linear", padding, c) for padding in ("zeros", "border", "reflection") for c in (0, 1)),
        *(("cubic", "zeros", 0), ("cubic", "border", 1), ("cubic", "reflection", 1)),
        ("nearest", "zeros", 1),
    ],
)
def test_a_line_is_sampled_as_an_image_of_one_row(
    mode: str, padding: str, align_corners: int, tmp_path: Path, random: np.random.Generator
) -> None:
    """As ONNX's reference evaluator samples the line; ONNX Runtime samples none.

    The evaluator parts from PyTorch, and from ONNX Runtime on images, in one combination.
    """
    kind = f'mode = "{mode}", padding_mode = "{padding}", align_corners = {align_corners}'
    text = "(double[2, 3, 6] x, double[2, 5, 1] at) => (double y) { y = GridSample<%s>(x, at) }"
    source, path = parsed(tmp_path / "m.onnx", text % kind), tmp_path / "d.onnx"
    made = onnxplain.differentiate(source, path, seed="input")
    assert "ONNX Runtime does not run the source" in made.notes[0]
    x, at, g = drawn(random, 2, 3, 6), drawn(random, 2, 5, 1), drawn(random, 2, 3, 5)
    found = run(path, x=x, at=at, seed__y=g)
    given = {"x": x.numpy(), "at": at.numpy()}
    (y,) = ReferenceEvaluator(onnx.load(source)).run(None, given)
    if (mode, padding, align_corners) != ("cubic", "border", 1):
        np.testing.assert_allclose(found["y"], y, atol=1e-5)

    def sampled(x: Tensor, at: Tensor) -> Tensor:
        names = {"linear": "bilinear", "cubic": "bicubic"}
        places = torch.nn.functional.pad(at[:, None], (0, 1))
        rows = x[:, :, None].expand(-1, -1, 5, -1)
        y = torch.nn.functional.grid_sample(
            rows, places, names.get(mode, mode), padding, bool(align_corners)
        )
        return y[:, :, 0]

    y, pull = torch.func.vjp(sampled, x, at)
    assert error(found["y"], y) < EXACT
    for name, expected in zip(("x", "at"), pull(g), strict=True):
        np.testing.assert_allclose(found.get(f"grad.{name}", 0 * at), expected, atol=1e-9)


# ----- sequences of no step -----


@pytest.mark.parametrize(("layer", "gates"), [("RNN", 1), ("GRU", 3), ("LSTM", 4)])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_a_sequence_of_no_step_ends_in_zeros(
    layer: str, gates: int, direction: str, tmp_path: Path, random: np.random.Generator
) -> None:
    """As in ONNX Runtime, whatever it begins with, whose gradient is therefore 0."""
    directions = 1 + (direction == "bidirectional")
    states = ["h", "c"] if layer == "LSTM" else ["h"]
    weights = {
        "W": random.normal(size=(directions, gates * 5, 3)) / 3,
        "R": random.normal(size=(directions, gates * 5, 5)) / 3,
        "lengths": np.array([0, 3], np.int32),
    }
    made = node(
        layer,
        ["x", "W", "R", "", "lengths", *(f"{s}0" for s in states)],
        ["", *states],
        hidden_size=5,
        direction=direction,
        **({"linear_before_reset": 1} if layer == "GRU" else {}),
    )
    shapes = {"x": [4, 2, 3], **{f"{s}0": [directions, 2, 5] for s in states}}
    graph = helper.make_graph(
        [made],
        "layer",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in states],
        [numpy_helper.from_array(_float32(w), name) for name, w in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, tmp_path / "m.onnx")
    path = tmp_path / "d.onnx"
    assert onnxplain.differentiate(tmp_path / "m.onnx", path, of=states, seed="input").notes == ()

    xs = {name: drawn(random, *shape, dtype=np.float32) for name, shape in shapes.items()}
    seeds = [drawn(random, directions, 2, 5, dtype=np.float32) for _ in states]
    found = run(path, **xs, **{f"seed__{s}": g for s, g in zip(states, seeds, strict=True)})
    module = _torch_layer(layer, weights, direction)

    def second(x: Tensor, *first: Tensor) -> tuple[Tensor, ...]:
        """The last states of the second sequence, of which three steps count."""
        alone = [state[:, 1:].contiguous() for state in first]
        given = tuple(alone) if layer == "LSTM" else alone[0]
        _, last = torch.func.functional_call(module, {}, (x[:3, 1:], given))
        return last if layer == "LSTM" else (last,)

    leaves = [x.clone().requires_grad_() for x in xs.values()]
    torch.autograd.backward(second(*leaves), [g[:, 1:] for g in seeds])
    for name, leaf in zip(xs, leaves, strict=True):
        assert error(found[f"grad.{name}"], leaf.grad) < 1e-5
    for state in states:
        assert not found[state][:, 0].any()


def _float32(array: Array) -> Array:
    return array if array.dtype.kind == "i" else array.astype(np.float32)


_ORDER = {"RNN": [0], "GRU": [1, 0, 2], "LSTM": [0, 2, 3, 1]}
"""Where PyTorch's gates stand among those of ONNX."""


def _torch_layer(layer: str, weights: dict[str, Array], direction: str) -> torch.nn.Module:
    kind = getattr(torch.nn, layer)
    module = kind(3, 5, bias=False, bidirectional=direction == "bidirectional")
    order = np.concatenate([np.arange(5) + 5 * i for i in _ORDER[layer]])
    of_directions = zip(weights["W"], weights["R"], strict=True)
    given = [each[order] for pair in of_directions for each in pair]
    for parameter, value in zip(module.parameters(), given, strict=True):
        parameter.data = torch.from_numpy(value.astype(np.float32))
    return module


# ----- functions of another opset than their model's -----

FUNCTION = '<domain: "my", opset_import: ["": %d, "my": 1]>'


def test_a_function_of_another_opset_whose_operators_are_the_same(
    tmp_path: Path, random: np.random.Generator
) -> None:
    """Of one older and one newer, which calls the other; the second time, one has a branch too."""
    text = """(double[4, 3] x) => (double y) <bool yes = {1}> {
        h = my.f<k = 0>(x)
        y = If(yes) <
            then_branch = t () => (double[4, 3] p) { p = my.f<k = 1>(h) },
            else_branch = e () => (double[4, 3] r) { r = Sin(h) }
        >
    }"""
    bodies = f"""
        {FUNCTION % 16} f <k> (a) => (b) {{ s = my.g(a) b = Softmax<axis: int = @k>(s) }}
        {FUNCTION % 18} g (a) => (b) {{ s = Sin(a) b = Sub(a, s) }}"""
    source, path = parsed(tmp_path / "m.onnx", text, 17, bodies, ', "my": 1'), tmp_path / "d.onnx"
    made = onnxplain.differentiate(source, path, seed="input")
    assert made.notes == ()  # as in ONNX Runtime

    def f(x: Tensor, k: int) -> Tensor:
        return torch.softmax(x - torch.sin(x), k)

    x, g = drawn(random, 4, 3), drawn(random, 4, 3)
    _, pull = torch.func.vjp(lambda x: f(f(x, 0), 1), x)
    assert error(run(path, x=x, seed__y=g)["grad.x"], *pull(g)) < EXACT


@pytest.mark.parametrize(
    ("model", "function", "body"),
    [(20, 11, "b = Softmax<axis = 1>(a)"), (13, 20, "b = Gelu(a)")],
)
def test_a_function_of_another_opset_whose_operators_differ_is_named(
    model: int, function: int, body: str, tmp_path: Path
) -> None:
    """As onnx.checker says too."""
    text, bodies = "(double[4, 3] x) => (double y) { y = my.f(x) }", f"f (a) => (b) {{ {body} }}"
    bodies = f"{FUNCTION % function} {bodies}"
    source = parsed(tmp_path / "m.onnx", text, model, bodies, ', "my": 1')
    said = rf"function 'f' is written for opset {function}.* export the network again"
    with pytest.raises(SourceError, match=said):
        onnxplain.differentiate(source, tmp_path / "d.onnx")


def test_a_function_that_nothing_calls_may_be_of_any_opset(
    tmp_path: Path, random: np.random.Generator
) -> None:
    bodies = f"""
        {FUNCTION % 20} f (a) => (b) {{ b = Sin(a) }}
        {FUNCTION % 11} unused (a) => (b) {{ b = Softmax<axis = 1>(a) }}"""
    text = "(double[4, 3] x) => (double y) { y = my.f(x) }"
    source = parsed(tmp_path / "m.onnx", text, 20, bodies, ', "my": 1')
    onnxplain.differentiate(source, tmp_path / "d.onnx", seed="input")
    x, g = drawn(random, 4, 3), drawn(random, 4, 3)
    assert error(run(tmp_path / "d.onnx", x=x, seed__y=g)["grad.x"], g * torch.cos(x)) < EXACT


# ----- BatchNormalization in training mode -----


@pytest.mark.parametrize("before", ["Conv(x, w)", "ConvTranspose(x, w)", "Identity(x)"])
def test_training_mode_is_refused_before_anything_is_fused(before: str, tmp_path: Path) -> None:
    """It would be taken for evaluation mode, behind a convolution."""
    text = f"""(float[N, 3, 4, 4] x) => (float y)
        <float[3, 3, 1, 1] w = {{1, 0, 0, 1, 0, 0, 1, 0, 1}}, float[3] s = {{1, 2, 3}}> {{
        z = {before}
        q, mean, variance = BatchNormalization<training_mode = 1>(z, s, s, s, s)
        y = Relu(q)
    }}"""
    with pytest.raises(NoRuleError, match=r"BatchNormalization .* is in training mode; export the"):
        onnxplain.differentiate(parsed(tmp_path / "m.onnx", text), tmp_path / "d.onnx")


# ----- what only some sizes show -----


def test_a_ceil_mode_of_lp_pool_is_counted_as_runtimes_do(
    tmp_path: Path, random: np.random.Generator
) -> None:
    """Shape inference before opset 22 counts a window that starts in the padding."""
    kind = "kernel_shape = [2], strides = [3], ceil_mode = 1, p = 2"
    text = f"(float[N, 1, 3] x) => (float y) {{ y = LpPool<{kind}>(x) }}"
    source, path = parsed(tmp_path / "m.onnx", text), tmp_path / "d.onnx"
    onnxplain.differentiate(source, path, seed="input")
    for batch in (1, 2, 3):
        x = drawn(random, batch, 1, 3, dtype=np.float32)
        g = drawn(random, batch, 1, 1, dtype=np.float32)
        _, pull = torch.func.vjp(lambda x: x[..., :2].square().sum(-1, keepdim=True).sqrt(), x)
        assert error(run(path, x=x, seed__y=g)["grad.x"], *pull(g)) < 1e-6


@pytest.mark.parametrize(("opset", "keys"), [(23, 3), (24, 1)])
def test_a_mask_of_one_key_is_for_the_first_alone_since_opset_24(
    opset: int, keys: int, tmp_path: Path, random: np.random.Generator
) -> None:
    """Before, it is for all of them: so have it the function bodies that ONNX gives."""
    text = """(float[1, 1, 2, 4] q, float[1, 1, 3, 4] k, float[1, 1, 3, 4] v, bool[2, 1] m)
        => (float y) { y = Attention(q, k, v, m) }"""
    source, path = parsed(tmp_path / "m.onnx", text, opset), tmp_path / "d.onnx"
    onnxplain.differentiate(source, path, wrt=["q", "k", "v"], seed="input", check=False)
    q, k, v = (drawn(random, 1, 1, n, 4, dtype=np.float32) for n in (2, 3, 3))
    mask = np.array([[True], [True]])
    found = run(path, q=q, k=k, v=v, m=mask, seed__y=q)
    attended = torch.nn.functional.scaled_dot_product_attention
    y, pull = torch.func.vjp(lambda v: attended(q, k[:, :, :keys], v[:, :, :keys]), v)
    assert error(found["y"], y) < 1e-5
    assert error(found["grad.v"], *pull(q)) < 1e-5


def test_the_scale_of_blocks_of_which_the_last_is_not_full(
    tmp_path: Path, random: np.random.Generator
) -> None:
    text = """(int8[2, 5] x, float[2, 2] s) => (float y) {
        y = DequantizeLinear<axis = 1, block_size = 3>(x, s)
    }"""
    source, path = parsed(tmp_path / "m.onnx", text, 21), tmp_path / "d.onnx"
    onnxplain.differentiate(source, path, seed="input", check=False)
    x, g = torch.arange(10, dtype=torch.int8).reshape(2, 5), drawn(random, 2, 5, dtype=np.float32)
    given = {"x": x.numpy(), "s": np.ones((2, 2), np.float32), "seed.y": g.numpy()}
    (found,) = ReferenceEvaluator(onnx.load(path)).run(["grad.s"], given)
    each = x * g
    assert error(found, torch.stack([each[:, :3].sum(1), each[:, 3:].sum(1)], 1)) < 1e-6


def test_known_tuples_of_an_open_axis_are_put_back(
    tmp_path: Path, random: np.random.Generator
) -> None:
    text = """(double[3, L, 2] x) => (double y) <int64[2, 2] at = {0, 1, 2, 0}> {
        y = GatherND(x, at)
    }"""
    source, path = parsed(tmp_path / "m.onnx", text), tmp_path / "d.onnx"
    onnxplain.differentiate(source, path, seed="input")
    x, g = drawn(random, 3, 4, 2), drawn(random, 2, 2)
    _, pull = torch.func.vjp(lambda x: torch.stack([x[0, 1], x[2, 0]]), x)
    assert error(run(path, x=x, seed__y=g)["grad.x"], *pull(g)) < EXACT


def test_what_has_no_elements_has_a_gradient_without_any(tmp_path: Path) -> None:
    """A mean over an open axis of an empty batch, and an axis of size 0 that is flattened."""
    text = "(double[N, T] x) => (double y) <int64[1] last = {1}> { y = ReduceMean(x, last) }"
    source, path = parsed(tmp_path / "m.onnx", text), tmp_path / "d.onnx"
    onnxplain.differentiate(source, path)
    assert run(path, x=np.zeros((0, 5)))["grad.x"].shape == (0, 5)
    assert error(run(path, x=np.ones((2, 5)))["grad.x"], torch.full((2, 5), 0.2)) < 1e-7
    text = "(double[2, 0, 3] x) => (double y) <int64[1] flat = {-1}> { y = Reshape(x, flat) }"
    source = parsed(tmp_path / "m.onnx", text)
    onnxplain.differentiate(source, path, check=False)
    assert run(path, x=np.zeros((2, 0, 3)))["grad.x"].shape == (2, 0, 3)


def test_random_numbers_of_a_values_shape_have_no_gradient(
    tmp_path: Path, random: np.random.Generator
) -> None:
    text = "(double[2, 3] x) => (double y) { h = Sin(x) r = RandomNormalLike(h) y = Add(h, r) }"
    source, path, x = parsed(tmp_path / "m.onnx", text), tmp_path / "d.onnx", drawn(random, 2, 3)
    onnxplain.differentiate(source, path)
    assert error(run(path, x=x)["grad.x"], torch.cos(x)) < EXACT


# ----- more of what was once wrong, or refused -----


@pytest.mark.parametrize(("left", "right"), [(1, 0), (-1, 1), (2, -1), (0, 2)])
def test_attention_in_a_window_whose_keys_and_values_are_outputs_too(
    left: int, right: int, tmp_path: Path, random: np.random.Generator
) -> None:
    window = f"left_window_size = {left}, right_window_size = {right}"
    text = f"""(float[1, 2, 5, 4] q, float[1, 2, 5, 4] k, float[1, 2, 5, 4] v,
        float[1, 2, 3, 4] pk, float[1, 2, 3, 4] pv) => (float y, float keys, float values) {{
        y, keys, values = Attention<{window}>(q, k, v, , pk, pv)
    }}"""
    source, path = parsed(tmp_path / "m.onnx", text, 25), tmp_path / "d.onnx"
    names = ["q", "k", "v", "pk", "pv"]
    onnxplain.differentiate(source, path, of="y", wrt=names, seed="input", check=False)
    given = [drawn(random, 1, 2, 5 if len(n) == 1 else 3, 4, dtype=np.float32) for n in names]
    away = torch.arange(8) - (torch.arange(5)[:, None] + 3)  # three are from before
    allowed = (away >= -left if left >= 0 else away == away) & (
        away <= right if right >= 0 else away == away
    )

    def attention(q: Tensor, k: Tensor, v: Tensor, pk: Tensor, pv: Tensor) -> Tensor:
        keys, values = torch.cat([pk, k], 2), torch.cat([pv, v], 2)
        return torch.nn.functional.scaled_dot_product_attention(q, keys, values, allowed)

    y, pull = torch.func.vjp(attention, *given)
    g = drawn(random, *y.shape, dtype=np.float32)
    found = run(path, **dict(zip(names, given, strict=True)), seed__y=g)
    assert error(found["y"], y) < 1e-5
    assert error(found["keys"], torch.cat([given[3], given[1]], 2)) == 0
    for name, expected in zip(names, pull(g), strict=True):  # 0, of what no query may attend
        np.testing.assert_allclose(found[f"grad.{name}"], expected, atol=1e-6)


def test_what_is_constant_has_a_deviation_and_a_norm_without_a_slope(
    tmp_path: Path, random: np.random.Generator
) -> None:
    """As in PyTorch: 0 for the first channel, where the decompositions would have NaN."""
    text = """(double[2, 5] x) => (double y) <int64[1] last = {1}, double half = {0.5}> {
        mean = ReduceMean(x, last)
        away = Sub(x, mean)
        squares = Mul(away, away)
        variance = ReduceMean(squares, last)
        deviation = Sqrt(variance)
        again = Pow(variance, half)
        norm = ReduceL2(away, last)
        both = Add(deviation, again)
        y = Add(both, norm)
    }"""
    source, path, x = parsed(tmp_path / "m.onnx", text), tmp_path / "d.onnx", drawn(random, 2, 5)
    x[0] = 0.25
    onnxplain.differentiate(source, path)

    def spread(x: Tensor) -> Tensor:
        away = x - x.mean(1, keepdim=True)
        return (2 * x.std(1, correction=0) + torch.linalg.vector_norm(away, dim=1)).sum()

    expected = torch.autograd.grad(spread(x.requires_grad_()), x)[0]
    assert error(run(path, x=x.detach())["grad.x"], expected) < 1e-9
    assert not expected[0].any()


@pytest.mark.parametrize(("low", "high"), [("-3.4e38", "3.4e38"), ("-1.0e30", "2.0")])
def test_a_bound_that_nothing_reaches(low: str, high: str, tmp_path: Path) -> None:
    text = f"(float[9] x) => (float y) <float low = {{{low}}}, float high = {{{high}}}> "
    source = parsed(tmp_path / "m.onnx", text + "{ y = Clip(x, low, high) }")
    onnxplain.differentiate(source, tmp_path / "d.onnx")
    x = torch.linspace(-3, 3, 9)
    found = run(tmp_path / "d.onnx", x=x)["grad.x"]
    np.testing.assert_array_equal(found, (x < float(high)).float())
