"""Recurrent layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from onnxplain.errors import NoRuleError
from onnxplain.export.check import Case
from onnxplain.export.count import multiply_adds

from .check import check_vjp, cotangent_of, drawn

seeds = st.integers(0, 999).map(np.random.default_rng)
GATES = {"LSTM": 4, "GRU": 3}
STATES = {"LSTM": 2, "GRU": 1}


def layer(
    op: str,
    rng: np.random.Generator,
    direction: str = "forward",
    steps: int = 3,
    bias: bool = True,
    start: bool = True,
    seeded: tuple[int, ...] = (0,),
) -> Case:
    d, n, wide, hidden, gates = 1 + (direction == "bidirectional"), 2, 3, 2, GATES[op]
    inputs: list[np.ndarray | None] = [
        rng.normal(size=[steps, n, wide]),
        rng.normal(size=[d, gates * hidden, wide]),
        rng.normal(size=[d, gates * hidden, hidden]),
        rng.normal(size=[d, 2 * gates * hidden]) if bias else None,
        None,
        *(rng.normal(size=[d, n, hidden]) if start else None for _ in range(STATES[op])),
    ]
    while inputs[-1] is None:
        inputs.pop()
    attributes = {"hidden_size": hidden, "direction": direction}
    if op == "GRU":
        attributes["linear_before_reset"] = 1
    outputs = 1 + STATES[op]
    return Case(op, inputs, attributes, dynamic=[], outputs=outputs, seeded=seeded)


@st.composite
def layers(draw: st.DrawFn, op: str) -> Case:
    direction = draw(st.sampled_from(["forward", "reverse", "bidirectional"]))
    seeded = sorted(draw(st.sets(st.sampled_from(range(1 + STATES[op])), min_size=1)))
    bias, start, steps = draw(st.booleans()), draw(st.booleans()), draw(st.integers(1, 4))
    return layer(op, draw(seeds), direction, steps, bias, start, tuple(seeded))


CASES = {op: layers(op) for op in GATES}
COVERED = set(CASES)


@pytest.mark.parametrize("operator", CASES)
@drawn(15)
@given(data=st.data())
def test_the_rule_is_the_transposed_jacobian(operator: str, data: st.DataObject):
    check_vjp(data.draw(CASES[operator]))


def test_an_lstm_agrees_with_torch_autograd():
    """PyTorch's gates are i, f, ĉ, o where ONNX has i, o, f, ĉ."""
    case = layer("LSTM", np.random.default_rng(1), start=False)
    x, w, r, b = case.inputs
    module = torch.nn.LSTM(3, 2).double()
    order = np.array([0, 1, 4, 5, 6, 7, 2, 3])
    given = [w[0][order], r[0][order], *(half[order] for half in np.split(b[0], 2))]
    for parameter, value in zip(module.parameters(), given, strict=True):
        parameter.data = torch.tensor(value)
    leaf = torch.tensor(x, requires_grad=True)
    y = module(leaf)[0]
    g = np.random.default_rng(0).normal(size=y.shape)
    y.backward(torch.tensor(g))
    np.testing.assert_allclose(cotangent_of(case, g[:, None]), leaf.grad, atol=1e-12)


@pytest.mark.parametrize("operator", GATES)
@pytest.mark.parametrize("unusual", ["clip", "layout", "activations"])
def test_a_layer_of_another_kind_has_no_rule_and_says_so(operator: str, unusual: str):
    case = layer(operator, np.random.default_rng(1), start=False)
    activations = ["Relu", "Tanh", "Tanh"][: STATES[operator] + 1]
    value = {"clip": 1.0, "layout": 1, "activations": activations}[unusual]
    if unusual == "layout":
        case.inputs[0] = case.inputs[0].transpose(1, 0, 2)
    case.attributes[unusual] = value
    with pytest.raises(NoRuleError, match=f"{operator} with {unusual}"):
        cotangent_of(case, np.ones([3, 1, 2, 2]))


def test_a_gru_that_resets_before_its_product_has_no_rule_and_says_so():
    case = layer("GRU", np.random.default_rng(1))
    del case.attributes["linear_before_reset"]
    with pytest.raises(NoRuleError, match="linear_before_reset"):
        cotangent_of(case, np.ones([3, 1, 2, 2]))


def test_the_products_of_a_layer_are_counted():
    case = layer("LSTM", np.random.default_rng(1), "bidirectional", steps=5)
    model = case.forward_model()
    assert multiply_adds(model.graph) == 5 * 2 * 2 * (4 * 2 * 3 + 4 * 2 * 2)
