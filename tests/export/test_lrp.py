"""Layer-wise relevance propagation: each rule against the contributions written out, in float64,
and whole networks against zennit and against the reference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx import helper
from onnxscript import OpBuilder
from torch import Tensor, nn
from torch.nn import functional

import onnxplain
from onnxplain.errors import InputError, NoRuleError, SourceError
from onnxplain.export import VJPS, composites, pull_back
from onnxplain.export.check import Case, add_output, add_seeds, builder_of, finished, forward_model
from onnxplain.export.methods import METHODS
from onnxplain.export.values import is_weight, non_negative
from onnxplain.reference.float64 import evaluate

from .graphs import explain, head, images, node, write
from .vjps.check import runtime

RNG = np.random.default_rng(0)
LRP = [name for name, method in METHODS.items() if method.relevance is not None]


def pulled(case: Case, R: np.ndarray, method: str, float32: bool = False) -> list[np.ndarray]:
    """The relevances of the case's active inputs, given that of its output."""
    dtype = ir.DataType.FLOAT if float32 else ir.DataType.DOUBLE
    model = case.forward_model(dtype)
    inputs, seeds = list(model.graph.inputs), add_seeds(model, (0,))
    found = pull_back(builder_of(model), seeds, inputs, METHODS[method].rules())
    model.graph.outputs[:] = []
    for i, (relevance, x) in enumerate(zip(found, inputs, strict=True)):
        add_output(model, relevance, f"r{i}", like=x)
    composites.spell_out(model)
    feeds = {f"x{i}": x.astype(dtype.numpy()) for i, x in enumerate(case.arrays())}
    feeds["g0"] = R.astype(dtype.numpy())
    return (runtime if float32 else evaluate)(finished(model), feeds)


def contributions(x: Tensor, f: Callable[[Tensor], Tensor]) -> tuple[Tensor, list[int], list[int]]:
    """c_ji = x_i ∂f_j/∂x_i, and which of its axes count i and which j."""
    y = f(x)
    jacobian = torch.autograd.functional.jacobian(f, x)
    assert isinstance(jacobian, Tensor)
    return jacobian * x, list(range(y.ndim, y.ndim + x.ndim)), list(range(y.ndim))


def z_plus(x: Tensor, f: Callable[[Tensor], Tensor], R: Tensor, epsilon: float = 1e-5) -> Tensor:
    """R_i = Σ_j c_ji⁺ / (Σ_i c_ji⁺ + ε) R_j of a linear f."""
    c, i, j = contributions(x, f)
    c = c.clamp(min=0)
    share = R / (c.sum(i) + epsilon)
    return (c * share.reshape(*share.shape, *[1] * x.ndim)).sum(j)


def z_epsilon(x: Tensor, f: Callable[[Tensor], Tensor], R: Tensor) -> Tensor:
    """R_i = Σ_j c_ji / (y_j + ε sign y_j) R_j of an affine f."""
    c, _, j = contributions(x, f)
    y = f(x)
    share = R / (y + 1e-6 * torch.where(y < 0, -1.0, 1.0))
    return (c * share.reshape(*share.shape, *[1] * x.ndim)).sum(j)


def t(array: np.ndarray) -> Tensor:
    return torch.tensor(array)


X = RNG.normal(size=(2, 4, 7, 6))
ROWS = RNG.normal(size=(3, 5))
W = RNG.normal(size=(6, 2, 3, 3))
B = RNG.normal(size=6)
WT = RNG.normal(size=(4, 3, 2, 2))
M = RNG.normal(size=(4, 5))
TOKENS = RNG.normal(size=(2, 3, 5))
CONV = {"strides": [2, 1], "pads": [1, 0, 1, 2], "dilations": [1, 2], "group": 2}
POOL = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
CEIL = {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1}


def conv(x: Tensor, b: Tensor | None = None) -> Tensor:
    x = functional.pad(x, (0, 2, 1, 1))
    return functional.conv2d(x, t(W), b, stride=(2, 1), dilation=(1, 2), groups=2)


def averaged(x: Tensor, kernel: Any, padding: int = 0, ceil: bool = False) -> Tensor:
    return functional.avg_pool2d(x, kernel, 2, padding, ceil, count_include_pad=False)


PRODUCTS: dict[str, tuple[Case, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    # the operator, what it computes, and the same without its bias
    "Conv": (Case("Conv", [X, W, B], CONV), lambda x: conv(x, t(B)), conv),
    "ConvTranspose": (
        Case("ConvTranspose", [X, WT], {"strides": [2, 2]}),
        *[lambda x: functional.conv_transpose2d(x, t(WT), stride=2)] * 2,
    ),
    "Gemm": (
        Case("Gemm", [ROWS, M, B[:4]], {"transB": 1, "alpha": -0.5}),
        lambda x: -0.5 * x @ t(M).T + t(B[:4]),
        lambda x: -0.5 * x @ t(M).T,
    ),
    "MatMul": (Case("MatMul", [TOKENS, M.T]), *[lambda x: x @ t(M).T] * 2),
    "MatMul from the left": (
        Case("MatMul", [RNG.normal(size=(4, 3)), TOKENS], active=(1,), dynamic=(1,)),
        *[lambda x: t(PRODUCTS["MatMul from the left"][0].inputs[0]) @ x] * 2,
    ),
    "Einsum": (
        Case("Einsum", [TOKENS, M], {"equation": "bij,kj->bki"}),
        *[lambda x: torch.einsum("bij,kj->bki", x, t(M))] * 2,
    ),
}

POOLS: dict[str, tuple[Case, Callable[[Tensor], Tensor]]] = {
    "MaxPool": (Case("MaxPool", [X], POOL), lambda x: averaged(x, 3, 1)),
    "MaxPool by its ceiling": (Case("MaxPool", [X], CEIL), lambda x: averaged(x, (3, 2), 0, True)),
    "AveragePool": (Case("AveragePool", [X], POOL), lambda x: averaged(x, 3, 1)),
    "GlobalAveragePool": (
        Case("GlobalAveragePool", [X]),
        lambda x: x.mean((2, 3), keepdim=True),
    ),
    "GlobalMaxPool": (Case("GlobalMaxPool", [X]), lambda x: x.mean((2, 3), keepdim=True)),
    "ReduceMean": (
        Case("ReduceMean", [X, np.array([2, 3])], {"keepdims": 0}),
        lambda x: x.mean((2, 3)),
    ),
    "ReduceSum": (Case("ReduceSum", [X, np.array([1])]), lambda x: x.sum(1, keepdim=True)),
    "ReduceMax": (Case("ReduceMax", [X, np.array([-1])]), lambda x: x.mean(-1, keepdim=True)),
    "Resize": (
        Case("Resize", [X, None, None, np.array([14, 3])], {"mode": "linear", "axes": [2, 3]}),
        lambda x: functional.interpolate(x, (14, 3), mode="bilinear"),
    ),
}


@pytest.mark.parametrize("float32", [False, True], ids=["float64", "ONNX Runtime"])
@pytest.mark.parametrize("name", PRODUCTS)
def test_z_plus_shares_by_the_positive_contributions_and_leaves_the_bias_out(
    name: str, float32: bool
):
    case, f, without_bias = PRODUCTS[name]
    x = t(case.arrays()[0])
    R = RNG.normal(size=f(x).shape)
    (found,) = pulled(case, R, "lrp-zplus", float32)
    expected = z_plus(x, without_bias, t(R)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5 if float32 else 1e-9)


@pytest.mark.parametrize("name", PRODUCTS)
def test_epsilon_shares_by_the_contributions_and_the_bias_keeps_its_own(name: str):
    case, f, _ = PRODUCTS[name]
    x = t(case.arrays()[0])
    R = RNG.normal(size=f(x).shape)
    (found,) = pulled(case, R, "lrp-epsilon")
    np.testing.assert_allclose(found, z_epsilon(x, f, t(R)).numpy(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("float32", [False, True], ids=["float64", "ONNX Runtime"])
@pytest.mark.parametrize("name", POOLS)
def test_in_zplus_a_pool_shares_by_what_is_positive_and_a_maximum_is_an_average(
    name: str, float32: bool
):
    case, f = POOLS[name]
    x = t(case.arrays()[0])
    R = RNG.normal(size=f(x).shape)
    (found,) = pulled(case, R, "lrp-zplus", float32)
    expected = z_plus(x, f, t(R)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5 if float32 else 1e-9)


@pytest.mark.parametrize("name", ["AveragePool", "ReduceMean", "ReduceSum", "Resize"])
def test_in_epsilon_a_pool_shares_by_value(name: str):
    case, f = POOLS[name]
    x = t(case.arrays()[0])
    R = RNG.normal(size=f(x).shape)
    (found,) = pulled(case, R, "lrp-epsilon")
    np.testing.assert_allclose(found, z_epsilon(x, f, t(R)).numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["lrp-epsilon", "epsilon-plus"])
def test_in_epsilon_a_maximum_takes_all(method: str):
    x = np.array([[[[1.0, 3.0], [2.0, -1.0]]]])
    case = Case("MaxPool", [x], {"kernel_shape": [2, 2]})
    (found,) = pulled(case, np.array([[[[5.0]]]]), method)
    np.testing.assert_array_equal(found, [[[[0, 5], [0, 0]]]])


def test_where_the_input_is_known_not_to_be_negative_z_plus_is_one_convolution(tmp_path: Path):
    """Forward, z and backward of two: the image's has a second term, ReLU's has none."""
    nodes, weights = head("b", 4 * 36)
    w1, w2 = images(4, 3, 3, 3, seed=1), images(4, 4, 3, 3, seed=2)
    path = write(
        tmp_path / "two.onnx",
        [
            node("Conv", ["x", "w1"], ["a"], pads=[0] * 4),
            node("Relu", ["a"], ["a+"]),
            node("Conv", ["a+", "w2"], ["b"], pads=[1] * 4),
            *nodes,
        ],
        {"w1": w1, "w2": w2, **weights},
    )
    onnxplain.export(path, tmp_path / "lrp.onnx", method="lrp-zplus")
    graph = ir.load(tmp_path / "lrp.onnx").graph
    assert sum(n.op_type in ("Conv", "ConvTranspose") for n in graph) == (1 + 2 + 2) + (1 + 1 + 1)


# ----- sums and products of two values -----

A4, C4 = X, RNG.normal(size=(2, 4, 1, 1))
R4 = RNG.normal(size=X.shape)


@pytest.mark.parametrize("op", ["Add", "Sub", "Sum", "Mean"])
def test_a_residual_sum_is_split_by_absolute_values_and_broadcasting_undone(op: str):
    a, c = pulled(Case(op, [A4, C4], active=(0, 1), dynamic=(0, 1)), R4, "lrp-zplus")
    total = np.abs(A4) + np.abs(C4) + 1e-5
    np.testing.assert_allclose(a, R4 * np.abs(A4) / total)
    np.testing.assert_allclose(c, (R4 * np.abs(C4) / total).sum((2, 3), keepdims=True))


def test_in_epsilon_a_sum_is_split_by_value():
    a, c = pulled(Case("Sub", [A4, C4], active=(0, 1), dynamic=(0, 1)), R4, "lrp-epsilon")
    y = A4 - C4
    s = R4 / (y + 1e-6 * np.where(y < 0, -1, 1))
    np.testing.assert_allclose(a, s * A4, rtol=1e-6)
    np.testing.assert_allclose(c, -(s * C4).sum((2, 3), keepdims=True), rtol=1e-6)


def test_a_constant_takes_nothing_in_zplus_and_a_biass_share_in_epsilon():
    case = Case("Add", [A4, C4])
    np.testing.assert_array_equal(pulled(case, R4, "lrp-zplus")[0], R4)
    (found,) = pulled(case, R4, "lrp-epsilon")
    y = A4 + C4
    np.testing.assert_allclose(found, R4 * A4 / (y + 1e-6 * np.where(y < 0, -1, 1)), rtol=1e-6)


@pytest.mark.parametrize("method", LRP)
def test_scales_activations_and_norms_pass_relevance_on(method: str):
    for case in (
        Case("Mul", [X, C4]),
        Case("Div", [X, C4]),
        Case("Relu", [X]),
        Case("Clip", [X, np.array(0.0), np.array(6.0)]),
        Case("Min", [X, np.array(0.5)]),
        Case("Gelu", [X]),
        Case("HardSwish", [X]),
        Case("LeakyRelu", [X]),
        Case("LayerNormalization", [X, B]),
        Case("BatchNormalization", [X, B[:4], B[:4], B[:4], B[:4] ** 2 + 1]),
    ):
        np.testing.assert_array_equal(pulled(case, R4, method)[0], R4, err_msg=str(case))


@pytest.mark.parametrize("method", LRP)
def test_two_values_that_multiply_each_other_take_half_each_and_a_divisor_nothing(method: str):
    a, c = pulled(Case("Mul", [A4, C4], active=(0, 1), dynamic=(0, 1)), R4, method)
    np.testing.assert_allclose(a, R4 / 2)
    np.testing.assert_allclose(c, R4.sum((2, 3), keepdims=True) / 2)

    class Normed(Case):
        def build(self, op: OpBuilder, *xs: ir.Value) -> list[ir.Value]:
            return [op.Div(xs[0], op.ReduceL2(xs[0], [1], keepdims=1))]

    np.testing.assert_array_equal(pulled(Normed("", [X]), R4, method)[0], R4)


class Squeezed(nn.Module):
    """A gate on the channels, SE's."""

    def __init__(self, hard: bool) -> None:
        super().__init__()
        self.conv, self.squeeze = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 1)
        self.gate = nn.Hardsigmoid() if hard else nn.Sigmoid()
        self.head = nn.Linear(6, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x))
        x = x * self.gate(self.squeeze(x.mean((2, 3), keepdim=True)))
        return self.head(x.mean((2, 3)))

    def expected(self, x: Tensor, R: Tensor) -> Tensor:
        a = torch.relu(self.conv(x))
        gated = a * self.gate(self.squeeze(a.mean((2, 3), keepdim=True)))
        R = z_plus(gated.mean((2, 3)), self.head, R)
        R = z_plus(gated, lambda z: z.mean((2, 3)), R)
        return z_plus(x, lambda z: functional.conv2d(z, self.conv.weight), R)


class Attentive(nn.Module):
    """Two heads over patches, a residual around them."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.q, self.k, self.v = (nn.Linear(8, 8, bias=False) for _ in range(3))
        self.head = nn.Linear(8, 4, bias=False)

    def tokens(self, x: Tensor) -> Tensor:
        return self.patches(x).flatten(2).transpose(1, 2)

    @staticmethod
    def split(x: Tensor) -> Tensor:
        return x.unflatten(2, (2, 4)).transpose(1, 2)

    def weights(self, x: Tensor) -> Tensor:
        q, k = self.split(self.q(x)), self.split(self.k(x))
        return (q @ k.transpose(2, 3)).softmax(-1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.tokens(x)
        x = x + (self.weights(x) @ self.split(self.v(x))).transpose(1, 2).flatten(2)
        return self.head(x.mean(1))

    def expected(self, x: Tensor, R: Tensor) -> Tensor:
        tokens = self.tokens(x)
        A = self.weights(tokens)
        values = self.split(self.v(tokens))
        branch = (A @ values).transpose(1, 2).flatten(2)
        R = z_plus((tokens + branch).mean(1), self.head, R)
        R = z_plus(tokens + branch, lambda z: z.mean(1), R)
        total = tokens.abs() + branch.abs() + 1e-5
        skip, attended = R * tokens.abs() / total, R * branch.abs() / total
        back = z_plus(values, lambda z: A @ z, self.split(attended))
        skip = skip + z_plus(tokens, self.v, back.transpose(1, 2).flatten(2))
        skip = skip.transpose(1, 2).unflatten(2, (2, 2))
        return z_plus(x, lambda z: functional.conv2d(z, self.patches.weight, stride=4), skip)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Squeezed(False),
        pytest.param(lambda: Squeezed(True), marks=pytest.mark.sweep),
        Attentive,
    ],
)
def test_gates_and_attentions_weights_are_held_constant(
    make: Callable[[], Squeezed | Attentive], tmp_path: Path
):
    torch.manual_seed(0)
    module = make().eval()
    x, path = torch.randn(2, 3, 8, 8), tmp_path / "x.onnx"
    onnxplain.export(module, path, example=x, method="lrp-zplus", multi_target=True)
    targets = np.array([[1, 0], [3, 2]])
    found = onnxplain.load(path, threads=1)(x.numpy(), targets).pullback
    module.double()
    for k in range(2):
        with torch.no_grad():
            R = functional.one_hot(torch.tensor(targets[:, k]), 4).double()
            expected = module.expected(x.double(), R).numpy()
        np.testing.assert_allclose(found[:, k], expected, atol=1e-6)
        assert np.abs(expected).max() > 1e-3


# ----- what the graph tells of a value -----


def test_what_comes_of_a_relu_is_not_negative_and_what_may_be_is_not_said_so():
    def build(op: OpBuilder, x: ir.Value) -> list[ir.Value]:
        a, b = op.Relu(x), op.Clip(x, 0.0, 6.0)
        signed = [x, op.Sub(a, b), op.Concat(a, x, axis=1), op.Mul(a, -1.0), op.Clip(x, -1.0, 6.0)]
        unsigned = [
            *(a, b, op.Concat(a, op.MaxPool(b, kernel_shape=[1, 1]), axis=1), op.Add(a, b)),
            *(op.Reshape(op.Sigmoid(x), [0, -1]), op.ReduceMean(op.Mul(a, 2.0), [2, 3])),
            op.Pad(a, [0, 0, 1, 1, 0, 0, 1, 1]),
        ]
        assert not any(map(non_negative, signed))
        assert all(map(non_negative, unsigned))
        return [x]

    forward_model(build, [X.shape])


def test_a_gate_times_a_value_is_no_gate():
    def build(op: OpBuilder, x: ir.Value) -> list[ir.Value]:
        gate = op.builder.call_op("SigmoidGate", [x], {}, domain="onnxplain", version=1)
        assert is_weight(op.Mul(op.Transpose(gate), 2.0))
        assert is_weight(op.Add(gate, 1.0))
        assert not is_weight(op.Mul(gate, x))
        assert not is_weight(op.Relu(x))
        assert not is_weight(op.Add(gate, x))
        return [x]

    forward_model(build, [X.shape])


# ----- the methods -----


def test_the_tables_are_complete_and_have_no_gradient_of_a_product():
    for method in (METHODS[name] for name in LRP):
        rules = method.rules()
        for name in ("Mul", "Div", "MatMul", "Gemm", "Conv", "Add", "Relu", "LayerNormalization"):
            assert rules[name] is not VJPS[name]
        assert "Det" not in rules
        assert "Softmax" not in rules


def test_an_operator_without_a_relevance_rule_is_an_error_that_says_where_to_put_one(
    tmp_path: Path,
):
    nodes, weights = head("s", 3 * 64)
    path = write(tmp_path / "sin.onnx", [node("Sin", ["x"], ["s"], name="wave"), *nodes], weights)
    with pytest.raises(NoRuleError, match=r"Sin.*wave.*onnxplain\.export\.methods\.lrp"):
        onnxplain.export(path, tmp_path / "lrp.onnx", method="lrp-zplus")
    scatter = helper.make_node("ScatterND", ["x", "at", "put"], ["s"], reduction="add")
    put = {"at": np.array([[0]]), "put": images(1, 3, 8, 8)}
    path = write(tmp_path / "scatter.onnx", [scatter, *nodes], weights | put, shape=(2, 3, 8, 8))
    with pytest.raises(NoRuleError, match="ScatterND"):
        onnxplain.export(path, tmp_path / "lrp.onnx", method="lrp-zplus")


def test_relevance_has_no_temperature_and_is_no_direction(
    tmp_path: Path, photographs: dict[str, np.ndarray]
):
    nodes, weights = head("x", 3 * 64)
    path, out = write(tmp_path / "net.onnx", nodes, weights), tmp_path / "lrp.onnx"
    with pytest.raises(SourceError, match="no temperature to make live"):
        onnxplain.export(path, out, method="lrp-zplus", live_temperature=True)
    with pytest.raises(SourceError, match="has no temperature; leave it out"):
        onnxplain.export(path, out, method="lrp-epsilon", temperature=1.0)
    for ascent in ({"step": True}, {"unroll": 3}):
        with pytest.raises(SourceError, match="'epsilon-plus' gives relevances"):
            onnxplain.export(path, out, method="epsilon-plus", **ascent)
    metadata = onnxplain.export(path, out, method="lrp-zplus")
    assert metadata.described_method == "lrp-zplus, epsilon 1e-05"
    with pytest.raises(InputError, match="lrp-zplus gives relevances, not a direction"):
        onnxplain.accentuate(onnxplain.load(out), photographs["coffee"])


@pytest.mark.parametrize("method", LRP)
def test_several_targets_equal_as_many_single_ones(method: str, tmp_path: Path):
    source, x = residual_network(tmp_path / "net.onnx"), images(2, 3, 8, 8)
    targets = np.array([[0, 3, -1], [2, 1, -2]])
    for several in (False, True):
        path = tmp_path / f"{several}.onnx"
        onnxplain.export(source, path, method=method, multi_target=several)
    one, many = (onnxplain.load(tmp_path / f"{k}.onnx", threads=1) for k in (False, True))
    found = many(x, targets).pullback
    for k in range(3):
        expected = one(x, targets[:, k]).pullback
        np.testing.assert_allclose(found[:, k], expected, rtol=1e-4, atol=1e-5)


def residual_network(path: Path) -> Path:
    """ReLUs, a residual sum, a maximum and an average; no bias."""
    nodes, weights = head("m", 8)
    return write(
        path,
        [
            node("Conv", ["x", "w1"], ["a"], pads=[1] * 4),
            node("Relu", ["a"], ["a+"]),
            node("Conv", ["a+", "w2"], ["b"], pads=[1] * 4),
            node("Add", ["a+", "b"], ["c"]),
            node("Relu", ["c"], ["c+"]),
            node("MaxPool", ["c+"], ["p"], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
            node("GlobalAveragePool", ["p"], ["m"]),
            *nodes,
        ],
        {"w1": images(8, 3, 3, 3, seed=1), "w2": images(8, 8, 3, 3, seed=2), **weights},
    )


def test_without_biases_relevance_is_conserved_up_to_epsilon(tmp_path: Path):
    path, x = residual_network(tmp_path / "net.onnx"), images(3, 3, 8, 8)
    relevance = explain(path, x, "lrp-zplus").pullback
    np.testing.assert_allclose(relevance.sum((1, 2, 3)), 1, atol=1e-4)
    assert relevance.min() >= 0
    # z of the last layer, 1e-5 beside a logit, is all that ε takes in `lrp-epsilon`.
    np.testing.assert_allclose(
        explain(path, x, "lrp-epsilon").pullback.sum((1, 2, 3)), 1, atol=1e-3
    )


def test_the_weights_are_stored_once(tmp_path: Path):
    nodes, weights = head("a", 8 * 64)
    path = write(
        tmp_path / "net.onnx",
        [node("Conv", ["x", "w"], ["a"], pads=[1] * 4), *nodes],
        {"w": images(8, 3, 3, 3, seed=1), **weights},
    )
    for method in LRP:
        onnxplain.export(path, tmp_path / "lrp.onnx", method=method)
        stored = ir.load(tmp_path / "lrp.onnx").graph.initializers.values()
        large = [v for v in stored if v.const_value is not None and v.const_value.size > 100]
        assert sorted(v.const_value.size for v in large if v.const_value) == [8 * 27, 8 * 64 * 4]
