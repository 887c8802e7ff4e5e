"""An ε after an activation, before a logarithm or a division, stays where it is: it is small beside
1, but not beside the 0 that it keeps away."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnxscript import GraphBuilder, OpBuilder
from torch.nn import functional

from onnxplain.export import pull_back
from onnxplain.export.canonical.canonicalise import canonicalise
from onnxplain.export.canonical.patterns import recognise
from onnxplain.export.finish import clean
from onnxplain.export.methods import METHODS
from onnxplain.reference.float64 import evaluator, in_float64

from .test_patterns import ACTIVATIONS, Spelling, graph_of

EPSILONS = [float(np.float32(epsilon)) for epsilon in (1e-5, 1e-7, 1e-9, 1e-12)]
POINTS = np.array([-20, -15, -3.3, -1, 0.7, 4, 9, 15])
Function = Callable[[torch.Tensor], torch.Tensor]

HEADS: dict[str, tuple[Spelling, Function]] = {
    "Relu": (lambda op, x: op.Relu(x), functional.relu),
    "ReLU6": (lambda op, x: op.Clip(x, 0.0, 6.0), functional.relu6),
    "Sigmoid": (lambda op, x: op.Sigmoid(x), torch.sigmoid),
    "Softplus": (lambda op, x: op.Softplus(x), lambda x: functional.softplus(x, threshold=1e3)),
    "Sigmoid by Exp": (ACTIVATIONS["Sigmoid"][0], torch.sigmoid),
}


def below_one(epsilon: float) -> float:
    return float(np.float32(1 - epsilon))


AFTER: dict[str, Callable[[OpBuilder, ir.Value, float], ir.Value]] = {
    "Add": lambda op, y, epsilon: op.Add(y, epsilon),
    "Max": lambda op, y, epsilon: op.Max(y, epsilon),
    "Clip": lambda op, y, epsilon: op.Clip(y, epsilon),
    "Clip to below 1": lambda op, y, epsilon: op.Clip(y, epsilon, below_one(epsilon)),
    "Min": lambda op, y, epsilon: op.Min(op.Add(y, epsilon), below_one(epsilon)),
}
IN_TORCH: dict[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
    "Add": lambda y, epsilon: y + epsilon,
    "Max": lambda y, epsilon: y.clamp(min=epsilon),
    "Clip": lambda y, epsilon: y.clamp(min=epsilon),
    "Clip to below 1": lambda y, epsilon: y.clamp(epsilon, below_one(epsilon)),
    "Min": lambda y, epsilon: (y + epsilon).clamp(max=below_one(epsilon)),
}


def found(spell: Spelling, x: np.ndarray, half: bool) -> list[np.ndarray]:
    """A graph's value and the gradient of its sum, recognised first and then run in float64."""
    model = graph_of(spell, x.shape[1:])
    recognise(model, was_half=half)
    for value in [*model.graph.initializers.values()]:
        value.name = f"source.{value.name}"  # as the canonical form has it
    builder = GraphBuilder(model.graph)
    (image,), (y,) = model.graph.inputs, model.graph.outputs
    ones = builder.op.Expand(1.0, builder.op.Shape(y))
    ones.shape, ones.dtype = y.shape, y.dtype
    rules = METHODS["gradient"].rules()
    (pullback,) = pull_back(builder.op, {y: ones}, [image], rules)
    model.graph.outputs.append(builder.op.Identity(pullback))
    model.graph.outputs[-1].dtype, model.graph.outputs[-1].shape = image.dtype, image.shape
    model.graph.sort()
    clean(model)
    return evaluator(in_float64(ir.to_proto(model))).run(None, {"image": x})


@pytest.mark.parametrize("half", [False, True], ids=["float32", "half"])
@pytest.mark.parametrize("head", HEADS)
def test_an_epsilon_after_an_activation_is_kept(head: str, half: bool):
    """Each ε, and each way to write it, has a row; log y has the derivative of autograd."""
    activation, in_torch = HEADS[head]
    every = [(after, epsilon) for after in AFTER for epsilon in EPSILONS]

    def spell(op: OpBuilder, x: ir.Value) -> ir.Value:
        rows = [op.Gather(x, [i], axis=1) for i in range(len(every))]
        kept = [
            AFTER[after](op, activation(op, row), epsilon)
            for row, (after, epsilon) in zip(rows, every, strict=True)
        ]
        return op.Log(op.Concat(*kept, axis=1))

    x = torch.from_numpy(np.tile(POINTS, (1, len(every), 1))).requires_grad_()
    rows = zip(in_torch(x).unbind(1), every, strict=True)
    y = torch.stack([IN_TORCH[after](row, epsilon) for row, (after, epsilon) in rows], 1).log()
    (gradient,) = torch.autograd.grad(y.sum(), x)
    ours, by_x = found(spell, x.detach().numpy(), half)
    np.testing.assert_allclose(ours, y.detach(), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(by_x, gradient, rtol=1e-6, atol=1e-15)


@pytest.mark.parametrize("half", [False, True], ids=["float32", "half"])
@pytest.mark.parametrize(
    "spell",
    [
        lambda op, x: op.Relu(op.Add(x, 1e-6)),
        lambda op, x: op.Where(op.Greater(x, 1e-6), x, 0.0),
        lambda op, x: op.Where(op.Greater(x, 0.0), x, 1e-6),
        lambda op, x: op.Mul(x, op.Add(op.Sigmoid(x), 1e-8)),
        lambda op, x: op.Max(op.Abs(op.Relu(x)), 1e-6),
    ],
)
def test_an_epsilon_within_a_chain_makes_it_another(spell: Spelling, half: bool):
    def of(model: ir.Model) -> list[str]:
        return [node.op_type for node in model.graph]

    model = graph_of(spell, (3,))
    before = of(model)
    recognise(model, was_half=half)
    gates = {"SigmoidGate": "Sigmoid"}
    assert [gates.get(name, name) for name in of(model)] in (before, ["Relu", "Max"])


@pytest.mark.parametrize("dtype", [ir.DataType.FLOAT16, ir.DataType.BFLOAT16], ids=str)
@pytest.mark.parametrize(
    ("spell", "approximate"),
    [
        *((spell, "none") for spell in ACTIVATIONS["Gelu"][:5]),
        *((spell, "tanh") for spell in ACTIVATIONS["Gelu"][5:]),
    ],
)
def test_each_gelu_of_half_precision_is_told_from_the_other(
    spell: Spelling, approximate: str, dtype: ir.DataType
):
    """They differ by less than the rounding of their constants may; the nearest one is taken."""
    model = graph_of(spell, (3,))
    for value in model.graph.initializers.values():
        rounded = value.const_value.numpy().astype(dtype.numpy()).astype(np.float32)
        value.const_value = ir.tensor(rounded, name=value.name)
    for node in list(model.graph):
        if node.op_type == "Constant":
            rounded = np.float32(dtype.numpy().type(node.attributes.get_float("value_float")))
            node.attributes.add(ir.AttrFloat32("value_float", float(rounded)))
    assert recognise(model, was_half=True) == {"GELU": 1}
    (gelu,) = (node for node in model.graph if node.op_type == "Gelu")
    assert gelu.attributes.get_string("approximate", "none") == approximate


@pytest.mark.parametrize(
    ("operator", "constant", "order", "stays"),
    [
        *(("Add", 1e-8, 1, True), ("Add", 1e-8, -1, True), ("Sub", 1e-12, 1, True)),
        *(("Mul", 1 + 1e-6, 1, True), ("Mul", 1 - 1e-6, -1, True), ("Div", 1 - 1e-6, 1, True)),
        *(("Add", 0.0, 1, False), ("Add", 0.0, -1, False), ("Sub", 0.0, 1, False)),
        *(("Mul", 1.0, 1, False), ("Mul", 1.0, -1, False), ("Div", 1.0, 1, False)),
    ],
)
def test_no_number_is_taken_for_0_or_1_that_only_lies_beside_it(
    operator: str, constant: float, order: int, stays: bool
):
    """As onnxscript's rules take it, by which an ε of 1e-8 before a logarithm is lost."""

    def spell(op: OpBuilder, x: ir.Value) -> ir.Value:
        return op.Log(getattr(op, operator)(*[op.Relu(x), constant][::order]))

    graph = canonicalise(graph_of(spell, (3, 2, 2)), classifier=False).model.graph
    expected = ["Relu", operator, "Log"] if stays else ["Relu", "Log"]
    assert [node.op_type for node in graph] == expected
