"""The rules of the semantic pullback, each against its formula written out in torch (float64)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnxscript import OpBuilder
from torch import Tensor
from torch.nn import functional

from onnxplain.errors import SourceError
from onnxplain.export import composites
from onnxplain.export.autodiff import pull_back
from onnxplain.export.check import (
    Case,
    add_output,
    add_seeds,
    builder_of,
    finished,
    forward_model,
    initializer,
)
from onnxplain.export.methods import METHODS
from onnxplain.export.operators import OPERATORS, VJPS, Kind, by_name
from onnxplain.reference.float64 import evaluate

from .vjps.check import cotangent_of, distinct

RNG = np.random.default_rng(0)
Z = 3 * RNG.normal(size=(2, 3, 4, 5))
G = RNG.normal(size=Z.shape)


@dataclass
class Call(Case):
    """A case whose operator may be a composite, `onnxplain::Name`; its output has x's shape."""

    def build(self, op: OpBuilder, *values: ir.Value) -> Sequence[ir.Value]:
        (x,) = values
        domain, _, name = self.op.rpartition("::")
        if domain:
            others = [initializer(op, array, x.dtype) for array in self.inputs[1:]]
            y = op.builder.call_op(name, [x, *others], self.attributes, domain=domain, version=1)
        else:
            (y,) = super().build(op, x)
        y.shape, y.dtype = x.shape, x.dtype
        return [y]


def pulled(
    case: Case, g: np.ndarray, T: float = 1.0, *, live: bool = False, method: str = "semantic"
) -> np.ndarray:
    """The cotangent of the case's input, given that of its output."""
    (x,) = case.arrays()
    dtype = ir.DataType.from_numpy(x.dtype)
    model = case.forward_model(dtype)
    graph, op = model.graph, builder_of(model)
    (image,), seeds = list(graph.inputs), add_seeds(model, (0,))
    temperature = op.builder.input("T", dtype, []) if live else T
    (found,) = pull_back(
        op, seeds, [image], METHODS[method].rules({"temperature": temperature}, op)
    )
    graph.outputs[:] = []
    add_output(model, found, "pullback", like=image)
    composites.spell_out(model)
    feeds = {"x0": x, "g0": g.astype(x.dtype)} | ({"T": np.array(T, x.dtype)} if live else {})
    return evaluate(finished(model), feeds)[0]


def phi(u: Tensor) -> Tensor:
    return torch.distributions.Normal(0.0, 1.0).cdf(u)


SLOPE = np.array([0.1, -0.2, 0.7]).reshape(3, 1, 1)
SELU_SCALE = 1.0507009873554805

PLAIN = [
    name
    for name, row in OPERATORS.items()
    if row.kind is Kind.RECTIFIER and name not in METHODS["semantic"].overrides
]
"""The rectifiers without a formula of their own."""


def of_its_dtype(operator: str) -> np.ndarray:
    """Z, in float32 where the operator has no float64."""
    types = onnx.defs.get_schema(operator, 20).type_constraints[0].allowed_type_strs
    return Z if "tensor(double)" in types else Z.astype(np.float32)


GATES: dict[str, tuple[Call, Callable[[Tensor, float], Tensor]]] = {
    **{name: (Call(name, [of_its_dtype(name)]), lambda z, T: phi(z / (0.6 * T))) for name in PLAIN},
    "Selu": (Call("Selu", [Z]), lambda z, T: SELU_SCALE * phi(z / (0.6 * T))),
    "ThresholdedRelu": (
        Call("ThresholdedRelu", [Z], {"alpha": 1.5}),
        lambda z, T: phi((z - 1.5) / (0.6 * T)),
    ),
    "ReLU6": (
        Call("Clip", [2 * Z, np.array(0.0), np.array(6.0)]),
        lambda z, T: phi(z / (0.6 * T)),
    ),
    "LeakyRelu": (
        Call("LeakyRelu", [Z], {"alpha": 0.2}),
        lambda z, T: 0.2 + 0.8 * phi(z / (0.6 * T)),
    ),
    "PRelu": (
        Call("PRelu", [Z, SLOPE]),
        lambda z, T: torch.tensor(SLOPE) + (1 - torch.tensor(SLOPE)) * phi(z / (0.6 * T)),
    ),
    "Gelu": (Call("Gelu", [Z]), lambda z, T: phi(z / T)),
    "Gelu by tanh": (Call("Gelu", [Z], {"approximate": "tanh"}), lambda z, T: phi(z / T)),
    "SiLU": (
        Call("onnxplain::Swish", [Z], {"alpha": 1.0}),
        lambda z, T: torch.sigmoid(z / (1.6 * T)),
    ),
    "QuickGELU": (
        Call("onnxplain::Swish", [Z], {"alpha": 1.702}),
        lambda z, T: torch.sigmoid(1.702 * z / (1.6 * T)),
    ),
    "HardSwish": (
        Call("HardSwish", [2 * Z]),
        lambda z, T: (z / (6 * 1.6 * T) + 0.5).clamp(0, 1),
    ),
    "Mish": (
        Call("Mish", [Z]),
        lambda z, T: torch.tanh(torch.nn.functional.softplus(z / (1.6 * T))),
    ),
}


@pytest.mark.parametrize("live", [False, True], ids=["fixed", "live"])
@pytest.mark.parametrize("T", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("name", GATES)
def test_an_activations_gate_is_softened_by_the_factor_times_the_papers_temperature(
    name: str, T: float, live: bool
):
    case, gate = GATES[name]
    expected = G * gate(torch.tensor(case.inputs[0]), T).numpy()
    # 1e-6: attributes are float32, and one rectifier has no float64.
    np.testing.assert_allclose(pulled(case, G, T, live=live), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", sorted(set(GATES) - {"ReLU6"}))
def test_a_cold_gate_is_the_activations_own_slope_away_from_its_corner(name: str):
    """Those that saturate have slope e^z far below zero; a rounded corner ends some ±6 away."""
    case, _ = GATES[name]
    far = np.concatenate([np.linspace(-40, -14, 30), np.linspace(14, 40, 30)])
    z = np.broadcast_to(far.reshape(1, 1, 60, 1), (2, 3, 60, 1)).copy()
    case = Call(case.op, [z.astype(case.inputs[0].dtype), *case.inputs[1:]], case.attributes)
    g = RNG.normal(size=z.shape)
    gradient = (
        pulled(case, g, method="gradient")
        if "::" not in case.op
        else cotangent_of(Call("Swish", case.inputs, case.attributes, opset=24), g)
    )
    np.testing.assert_allclose(pulled(case, g, 1e-3), gradient, rtol=3e-5, atol=3e-5)


def test_a_saturated_relu6_is_a_highly_excited_one():
    z = np.array([[-9.0, 3.0, 9.0]])
    case = Call("Clip", [z, np.array(0.0), np.array(6.0)])
    np.testing.assert_allclose(pulled(case, np.ones_like(z)), [[0, 1, 1]], atol=1e-6)


def test_a_clip_that_is_no_relu6_keeps_its_gradient():
    case = Call("Clip", [Z, np.array(-1.0), np.array(1.0)])
    np.testing.assert_array_equal(pulled(case, G), pulled(case, G, method="gradient"))


# ----- pools -----


@pytest.mark.parametrize("live", [False, True], ids=["fixed", "live"])
@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]},
        {"kernel_shape": [2, 2], "dilations": [2, 1], "strides": [2, 2]},
    ],
)
def test_a_max_pool_shares_out_by_its_softmax_held_constant(attributes: dict, live: bool):
    x, T = distinct(np.random.default_rng(1), [2, 3, 6, 7]), 2.0
    case = Case("MaxPool", [x], attributes)
    kernel, strides = attributes["kernel_shape"], attributes["strides"]
    top, left, bottom, right = attributes.get("pads", [0] * 4)
    dilations = attributes.get("dilations", [1, 1])
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    leaf = torch.tensor(x, requires_grad=True)
    windows = torch.nn.functional.pad(leaf, (left, right, top, bottom))
    for axis in (0, 1):
        windows = windows.unfold(2 + axis, reach[axis], strides[axis])[..., :: dilations[axis]]
    windows = windows.flatten(-2)
    weights = torch.softmax(windows / (0.3 * T), -1).detach()
    s = (windows * weights).sum(-1)
    g = RNG.normal(size=tuple(s.shape))
    (expected,) = torch.autograd.grad(s, leaf, torch.tensor(g))
    np.testing.assert_allclose(pulled(case, g, T, live=live), expected, atol=1e-12)


def test_a_cold_max_pool_gives_all_to_the_maximum():
    x = distinct(np.random.default_rng(1), [1, 2, 4, 4])
    case = Case("MaxPool", [x], {"kernel_shape": [2, 2], "strides": [2, 2]})
    g = RNG.normal(size=(1, 2, 2, 2))
    gradient = pulled(case, g, method="gradient")
    np.testing.assert_allclose(pulled(case, g, 1e-3), gradient, atol=1e-12)


# ----- normalisations -----

E = 1e-3
GAMMA, BETA = RNG.normal(size=(2, 5)), RNG.normal(size=5)


def sigma(x: np.ndarray, *axes: int) -> np.ndarray:
    return np.sqrt(x.var(axes, keepdims=True) + np.float32(E))


def rms(x: np.ndarray, *axes: int) -> np.ndarray:
    return np.sqrt((x**2).mean(axes, keepdims=True) + np.float32(E))


def lrn_factor(x: np.ndarray) -> np.ndarray:
    """d^−0.75 for a window of 2 channels: a channel's own and the next."""
    squares = x**2
    sums = squares + np.concatenate([squares[:, 1:], np.zeros_like(squares[:, :1])], 1)
    return (2 + np.float32(0.5) / 2 * sums) ** -0.75


def response(x: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(x, axis=(1, 2), keepdims=True)
    return norm / (norm.mean(-1, keepdims=True) + np.float32(E))


PLANES = RNG.normal(size=(4, 5))
CHANNELS = RNG.normal(size=(2, 3))
NORMS: dict[str, tuple[Call, np.ndarray]] = {
    "LayerNormalization": (
        Call("LayerNormalization", [Z, GAMMA[0], BETA], {"epsilon": E}),
        GAMMA[0] / sigma(Z, 3),
    ),
    "LayerNormalization over two axes": (
        Call("LayerNormalization", [Z, PLANES], {"axis": 2, "epsilon": E}),
        PLANES / sigma(Z, 2, 3),
    ),
    "InstanceNormalization": (
        Call("InstanceNormalization", [Z, *CHANNELS], {"epsilon": E}),
        CHANNELS[0].reshape(3, 1, 1) / sigma(Z, 2, 3),
    ),
    "onnxplain::RMSNormalization": (
        Call("onnxplain::RMSNormalization", [Z, GAMMA[0]], {"axis": -2, "epsilon": E}),
        GAMMA[0] / rms(Z, 2, 3),
    ),
    "GlobalResponseNormalization": (
        Call(
            "onnxplain::GlobalResponseNormalization",
            [Z, *GAMMA],
            {"axis": -1, "axes": [-3, -2], "epsilon": E},
        ),
        1 + GAMMA[0] * response(Z),
    ),
    "LpNormalization": (
        Call("LpNormalization", [Z], {"axis": 1}),
        1 / np.linalg.norm(Z, axis=1, keepdims=True),
    ),
    "LpNormalization, p = 1": (
        Call("LpNormalization", [Z], {"p": 1}),
        1 / np.abs(Z).sum(-1, keepdims=True),
    ),
    "onnxplain::L2Normalization": (
        Call("onnxplain::L2Normalization", [Z], {"axes": [-1], "epsilon": 2.0}),
        1 / np.maximum(np.linalg.norm(Z, axis=-1, keepdims=True), 2.0),
    ),
    "LRN": (
        Call("LRN", [Z], {"size": 2, "alpha": 0.5, "beta": 0.75, "bias": 2.0}),
        lrn_factor(Z),
    ),
}


@pytest.mark.parametrize("name", NORMS)
def test_a_normalisations_statistics_are_held_constant(name: str):
    case, factor = NORMS[name]
    x = case.inputs[0]
    g = RNG.normal(size=x.shape)
    np.testing.assert_allclose(pulled(case, g), g * factor, rtol=1e-6, atol=1e-9)


def test_what_has_no_norm_gets_nothing():
    x = Z.copy()
    x[0, 0, 0] = 0
    case = Call("LpNormalization", [x])
    found = pulled(case, G)
    assert (found[0, 0, 0] == 0).all()
    assert np.isfinite(found).all()


# ----- gates and attention -----

HELD = {
    "onnxplain::AttentionWeights": {"axis": -1},
    "onnxplain::SigmoidGate": {},
    "onnxplain::HardSigmoidGate": {"alpha": 1 / 6, "beta": 0.5},
}


@pytest.mark.parametrize("operator", HELD)
def test_nothing_flows_into_what_only_multiplies(operator: str):
    """Alone on the way to the image, it leaves nothing to explain, and that is an error."""
    with pytest.raises(SourceError, match="does not depend"):
        pulled(Call(operator, [Z], HELD[operator]), G)


@pytest.mark.parametrize("operator", HELD)
def test_what_it_multiplies_gets_the_cotangent_times_the_forwards_value(operator: str):
    class Gated(Call):
        def build(self, op: OpBuilder, *values: ir.Value) -> Sequence[ir.Value]:
            (gate,) = super().build(op, *values)
            product = op.Mul(values[0], gate)
            product.shape = values[0].shape
            return [product]

    z = torch.tensor(Z)
    value = {
        "onnxplain::AttentionWeights": torch.softmax(z, -1),
        "onnxplain::SigmoidGate": torch.sigmoid(z),
        "onnxplain::HardSigmoidGate": torch.nn.functional.hardsigmoid(z),
    }[operator]
    found = pulled(Gated(operator, [Z], HELD[operator]), G, T=2.0)
    np.testing.assert_allclose(found, G * value.numpy(), rtol=1e-6, atol=1e-9)


def test_a_sigmoid_that_is_no_gate_keeps_its_gradient():
    case = Call("Sigmoid", [Z])
    np.testing.assert_allclose(pulled(case, G), pulled(case, G, method="gradient"), rtol=1e-12)


# ----- the table -----


def test_every_rule_is_of_an_operator_that_has_a_gradient_or_of_a_composite():
    composite = {f"onnxplain::{name}" for name in composites.COMPOSITES}
    for method in METHODS.values():
        assert set(by_name(method.overrides)) <= set(VJPS) | composite


def test_semantic_has_a_rule_for_every_composite_of_a_network():
    rounding = {"DynamicScale", "DynamicSteps", "StopGradient"}  # no part of what is rounded
    composite = {f"onnxplain::{name}" for name in composites.COMPOSITES.keys() - rounding}
    assert composite <= set(by_name(METHODS["semantic"].overrides))


def test_excitation_leaves_all_but_relu_relu6_and_max_pool_alone():
    assert set(by_name(METHODS["excitation"].overrides)) == {"Relu", "Clip", "MaxPool"}


def test_the_temperatures_are_the_papers():
    z, g = np.array([[0.6, 1.0, 1.6]]), np.ones([1, 3])
    at_one = 0.5 * (1 + math.erf(1 / math.sqrt(2)))
    assert pulled(Call("Relu", [z]), g)[0, 0] == pytest.approx(at_one)
    assert pulled(Call("Gelu", [z]), g)[0, 1] == pytest.approx(at_one)
    silu = Call("onnxplain::Swish", [z], {"alpha": 1.0})
    assert pulled(silu, g)[0, 2] == pytest.approx(1 / (1 + math.exp(-1)))
    assert METHODS["semantic"].values({})["temperature"] == 1.0


PARAMETERS: dict[str, tuple[Any, list[int]]] = {
    "InstanceNormalization": (lambda z, s, b: functional.instance_norm(z, None, None, s, b), [3]),
    "LayerNormalization": (lambda z, s, b: functional.layer_norm(z, [4], s, b), [4]),
    "PRelu": (lambda z, s, _: functional.leaky_relu(z, 0.0) - s * functional.relu(-z), [4]),
}


@pytest.mark.parametrize("operator", PARAMETERS)
def test_parameters_that_follow_from_the_image_have_their_gradient(operator: str) -> None:
    """As in AdaIN: only what a rule is of is held, or softened."""
    function, size = PARAMETERS[operator]
    count = 2 if operator == "PRelu" else 3
    shapes = [[2, 3, 4], size, size][:count]
    model = forward_model(lambda op, *xs: [getattr(op, operator)(*xs)], shapes)
    op, (y,), xs = builder_of(model), model.graph.outputs, list(model.graph.inputs)
    seed = op.builder.input("g", y.dtype, [2, 3, 4])
    found = pull_back(op, {y: seed}, xs[1:], METHODS["semantic"].rules())
    model.graph.outputs[:] = []
    for i, (value, x) in enumerate(zip(found, xs[1:], strict=True)):
        add_output(model, value, f"of{i}", like=x)
    rng = np.random.default_rng(0)
    given = [rng.normal(size=shape) for shape in [*shapes, [2, 3, 4]]]
    names = [*(str(x.name) for x in xs), "g"]
    results = evaluate(finished(model), dict(zip(names, given, strict=True)))
    z, *parameters, g = map(torch.tensor, given)
    _, pull = torch.func.vjp(lambda *ps: function(z, *ps, *[None] * (3 - count)), *parameters)
    for ours, expected in zip(results, pull(g), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-12)
