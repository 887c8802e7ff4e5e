"""What is registered is checked at once, in words that name the mistake."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxplain
from onnxplain.errors import RuleError
from onnxplain.export import Method, Parameter, check_vjp, register_vjp
from onnxplain.export.operators import OPERATORS


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        ((), {}, "names of operators"),
        ((lambda op, node, g: g,), {}, "names of operators"),
        ((3,), {}, "names of operators"),
        (("acme::Swirl",), {"kind": "RECTIFIER"}, "kind is one of"),
    ],
)
def test_a_row_that_is_none(arguments: Any, options: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        register_vjp(*arguments, **options)


def test_a_rule_that_is_no_function() -> None:
    with pytest.raises(TypeError, match="a rule is a function"):
        register_vjp("acme::Swirl")("g")  # type: ignore[type-var]


@pytest.mark.parametrize("result", [5, [5], ["g"]])
def test_a_rule_that_gives_no_cotangent(result: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    row = dataclasses.replace(OPERATORS["Relu"], vjp=lambda op, node, g: result)
    monkeypatch.setitem(OPERATORS, "Relu", row)
    with pytest.raises(RuleError, match=r"Relu gives its input 0 a (int|str)"):
        check_vjp("Relu", [np.ones(3)])


@pytest.mark.parametrize(
    ("name", "default"), [("op", 1.0), ("layer", 1.0), ("", 1.0), ("a b", 1.0), ("beta", -1.0)]
)
def test_a_parameter_that_cannot_be(name: str, default: float) -> None:
    with pytest.raises(ValueError, match=r"cannot be a parameter|the default"):
        Parameter(name, default, "")


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("", ()),
        ("a\nb", ()),
        ("mine", (Parameter("a", 1.0, ""), Parameter("a", 2.0, ""))),
        ("mine", (Parameter("a", 1.0, "", relative=True),)),
        ("mine", (Parameter("a", None, ""),)),
    ],
)
def test_a_method_that_cannot_be(name: str, parameters: Any) -> None:
    with pytest.raises(ValueError, match=r"name|has no temperature"):
        Method(name, parameters=parameters)


@pytest.mark.parametrize(("arguments", "options"), [((), {"colour": "red"}), (("gradient",), {})])
def test_an_option_that_there_is_not(arguments: Any, options: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"^export\(\): .*options go by keyword"):
        onnxplain.export("net.onnx", tmp_path / "e.onnx", *arguments, **options)


def test_a_misspelled_option_is_told_the_one_that_was_meant(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"^export\(\): .*'weight'; did you mean weights\?$"):
        onnxplain.export("resnet18", tmp_path / "e.onnx", weight="none")  # type: ignore[call-arg]
