"""A rule that is wrong is wrong in a fresh derivation too: `verify` finds it nevertheless."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnxscript import OpBuilder

import onnxplain
from onnxplain.export.autodiff import Node
from onnxplain.export.canonical.patterns import activations
from onnxplain.export.operators import OPERATORS
from onnxplain.reference.independent import outputs_by_source

ROWS = """
    <ir_version: 9, opset_import: ["": 20]>
    rows (float[N, 3] x) => (float[N, 2] logits)
    <float[3, 2] w = {1, 0, -1, 1, 2, 1}, float eps = {0.01}> {
        t = Tanh (x)
        s = Sigmoid (t)
        above = Add (s, eps)
        l = Log (above)
        logits = MatMul (l, w)
    }
"""
IMAGES = """
    <ir_version: 9, opset_import: ["": 20]>
    images (float[N, 3, 4, 4] x) => (float[N, 1] age)
    <float eps = {0.01}, int64[2] places = {2, 3}, float[3, 1] w = {1, -1, 2}> {
        t = Tanh (x)
        s = Sigmoid (t)
        above = Add (s, eps)
        l = Log (above)
        m = ReduceMean <keepdims = 0> (l, places)
        age = MatMul (m, w)
    }
"""
ASKED: dict[str, dict[str, Any]] = {ROWS: {"wrt": ["x"]}, IMAGES: {"objective": "value"}}


@pytest.fixture(params=ASKED, ids=["values", "an objective"])
def failed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """What is not passed when a network is exported now, and verified."""
    source, graph = tmp_path / "source.onnx", tmp_path / "e.onnx"
    onnx.save(onnx.parser.parse_model(request.param), source)

    def of() -> list[str]:
        asked = ASKED[request.param]
        onnxplain.export(source, graph, method="gradient", check=False, **asked)
        found = onnxplain.verify(graph, source, provider="cpu", objective=asked.get("objective"))
        return [check.what for check in found.checks if not check.passed]

    return of


def test_a_right_graph_passes(failed: Any):
    assert failed() == []


def test_a_wrong_rule_shows_in_differences(failed: Any, monkeypatch: pytest.MonkeyPatch):
    def wrong(op: OpBuilder, node: Node, g: ir.Value) -> ir.Value:
        return op.Mul(g, node.outputs[0])

    row = replace(OPERATORS["Tanh"], vjp=wrong)
    monkeypatch.setitem(OPERATORS, "Tanh", row)
    assert [what.removeprefix("x, ") for what in failed()] == ["along the pullback", "along noise"]


def test_a_wrong_recognition_shows_in_the_outputs(failed: Any, monkeypatch: pytest.MonkeyPatch):
    def without_epsilon(chain: list[ir.Node], *_: Any) -> Any:
        names = [node.op_type for node in chain]
        return ("Sigmoid", {}) if names == ["Sigmoid", "Add"] else None

    monkeypatch.setattr(activations, "_activation", without_epsilon)
    (found,) = failed()
    assert found.endswith("by the source itself")


def in_steps(network: str) -> str:
    """The network with its image, or values, rounded to steps of 0.5."""
    steps = "float step = {0.5}, int8 zero = {0}, "
    rounding = "q = QuantizeLinear (x, step, zero)\n y = DequantizeLinear (q, step, zero)\n"
    return network.replace("<float", f"<{steps}float", 1).replace(
        "t = Tanh (x)", f"{rounding} t = Tanh (y)"
    )


@pytest.mark.parametrize("network", ASKED, ids=["values", "an objective"])
def test_differences_are_not_asked_of_what_rises_in_steps(network: str, tmp_path: Path):
    source, graph, asked = tmp_path / "source.onnx", tmp_path / "e.onnx", ASKED[network]
    onnx.save(onnx.parser.parse_model(in_steps(network)), source)
    onnxplain.export(source, graph, method="gradient", check=False, **asked)
    found = onnxplain.verify(graph, source, provider="cpu", objective=asked.get("objective"))
    assert found.passed, found


def test_a_source_that_takes_one_image_is_asked_about_one(tmp_path: Path):
    source, graph = tmp_path / "source.onnx", tmp_path / "e.onnx"
    onnx.save(onnx.parser.parse_model(IMAGES.replace("[N, ", "[1, ")), source)
    onnxplain.export(source, graph, method="gradient", check=False, objective="value")
    found = onnxplain.verify(graph, source, provider="cpu", objective="value")
    assert found.images > 1
    assert not found.notes
    assert "age, by the source itself" in [check.what for check in found.checks]


def test_what_is_not_compared_with_the_source_is_noted():
    found = {"a": np.ones(3, np.float32), "b": np.array([1, np.nan], np.float32)}
    wrong = {**found, "a": np.ones((3, 1), np.float32)}

    def compared(*answers: dict[str, Any] | str) -> tuple[list[bool], list[str]]:
        following = iter(answers)
        checks, notes = outputs_by_source(found, lambda: next(following), torch.nn.Identity())
        return [check.passed for check in checks], notes

    assert compared(found) == ([True, True], [])
    assert compared(wrong, wrong) == ([False, True], [])
    assert compared(wrong, found)[1] == [
        "not compared with the source itself: it does not answer twice the same"
    ]
    assert compared("it is silent") == ([], ["not compared with the source itself: it is silent"])
