"""The public check of a rule, and a rule of an operator that ONNX does not define."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx.reference.op_run import OpRun

from onnxplain.errors import InputError, NoRuleError, RuleError
from onnxplain.export import check_vjp, register_vjp
from onnxplain.export.operators import OPERATORS

X = np.random.default_rng(0).normal(size=(2, 3))
CAP = "acme::Softcap"
LIMIT = {"limit": 2.0}


class Softcap(OpRun):
    op_domain = "acme"

    def _run(self, x: Any, limit: float | None = None) -> tuple[Any]:
        bound = self.limit if limit is None else limit
        return (bound * np.tanh(x / bound),)


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Gives the operator a rule for as long as the test runs."""
    monkeypatch.setitem(OPERATORS, CAP, OPERATORS["Tanh"])
    return lambda rule: register_vjp(CAP)(rule)


def slope(op: Any, node: Any, g: Any) -> Any:
    """1 − tanh² (x / limit)."""
    tanh = op.Div(node.outputs[0], node.attributes.get_float("limit"))
    return op.Mul(g, op.Sub(1.0, op.Mul(tanh, tanh)))


def test_a_right_rule_passes_and_its_cotangent_is_returned(register: Any) -> None:
    register(slope)
    (found,) = check_vjp(CAP, [X], LIMIT, operators=[Softcap])
    g = np.random.default_rng(0).normal(size=X.shape)
    np.testing.assert_allclose(found, g * (1 - np.tanh(X / 2) ** 2))


def test_a_wrong_rule_is_told_with_the_input_and_by_how_much(register: Any) -> None:
    register(lambda op, node, g: op.Mul(g, 0.99))
    with pytest.raises(RuleError, match=r"acme::Softcap\[\[2, 3\]\] .*, input 0: .* by \d"):
        check_vjp(CAP, [X], LIMIT, operators=[Softcap])


def test_a_rule_that_is_wrong_by_one_in_ten_thousand_is_told(register: Any) -> None:
    register(lambda op, node, g: op.Mul(slope(op, node, g), 1 + 1e-4))
    with pytest.raises(RuleError):
        check_vjp(CAP, [X], LIMIT, operators=[Softcap])
    check_vjp(CAP, [X], LIMIT, operators=[Softcap], tolerance=1e-3)


def test_an_operator_without_a_rule_is_named() -> None:
    with pytest.raises(NoRuleError, match=r"acme::Other.*register_vjp"):
        check_vjp("acme::Other", [X])


def test_every_active_input_is_checked() -> None:
    w = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    found = check_vjp("MatMul", [X, w], active=(0, 1))
    assert [each.shape for each in found] == [(2, 3), (3, 4)]


def test_a_kink_needs_a_shorter_step_or_other_inputs() -> None:
    near = np.array([1e-4, -1.0])
    with pytest.raises(RuleError, match="kink"):
        check_vjp("Relu", [near])
    check_vjp("Relu", [near], steps=(1e-3, 1e-5))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"active": ()}, "active is empty: list at least one input"),
        ({"active": (2,)}, "active lists input 2, where the inputs are 0 to 1"),
        ({"active": (-1,)}, "active lists input -1"),
        ({"active": (0, 0)}, "active lists an input twice"),
        ({"active": 0}, "active must be a sequence of whole numbers, not 0"),
        ({"active": (1,)}, "input 1 is int64: what is differentiated is an array of floats"),
        ({"seeded": ()}, "seeded is empty: list at least one output"),
        ({"seeded": (1,)}, "seeded lists output 1, where the outputs are 0 to 0"),
        ({"steps": ()}, "steps must be one or more positive numbers"),
        ({"steps": (0.0,)}, "steps must be one or more positive numbers"),
        ({"steps": 1e-3}, "steps must be a sequence of numbers, not 0.001"),
    ],
)
def test_what_cannot_be_checked_is_told(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_vjp("Add", [X, [1, 2, 3]], **arguments)


def test_whole_numbers_are_no_input_to_differentiate() -> None:
    with pytest.raises(InputError, match="input 0 is int64"):
        check_vjp("Relu", [[1, 2, 3]])
    with pytest.raises(InputError, match="input 1 is absent"):
        check_vjp("Clip", [X, None], active=(0, 1))
