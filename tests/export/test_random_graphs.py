"""Operators of all kinds, put together at random, have the gradient that differences find."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from onnxscript import OpBuilder

from onnxplain.bench.node_tests.cases import NodeTest
from onnxplain.bench.node_tests.judge import KINK, RIGHT, UNDECIDED, judge
from onnxplain.export.check import Case
from onnxplain.export.composites import spell_out
from onnxplain.export.tensors import static
from onnxplain.reference.float64 import evaluator, in_float64

from .steps import STEPS, Step, convolve
from .vjps.check import check_vjp, drawn


@dataclass
class Plan(Case):
    """Steps, each from two of the values so far, by their distance from the last one."""

    steps: Sequence[tuple[Step, int, int, int]] = ()

    def build(self, op: OpBuilder, *values: ir.Value) -> Sequence[ir.Value]:
        made = [*values]
        for step, i, j, seed in self.steps:
            x, y = (made[-1 - k % len(made)] for k in (i, j))
            result = step(op, x, y, np.random.default_rng(seed))
            if 0 < np.prod(static(result, 1)) <= 300:
                made.append(result)
        return [op.Mul(made[-1], 1.0), op.ReduceSum(op.Tanh(made[len(made) // 2]), [1, 2, 3])]

    def __str__(self) -> str:
        return " ".join(f"{step.__name__}({i}, {j}, {seed})" for step, i, j, seed in self.steps)


plans = st.lists(
    st.tuples(st.sampled_from(STEPS), st.integers(0, 2), st.integers(0, 3), st.integers(0, 999)),
    min_size=4,
    max_size=8,
)


def check(plan: Sequence[tuple[Step, int, int, int]], seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=[2, 2, 4, 4])
    case = Plan("", [x], outputs=2, seeded=[0, 1], steps=plan)
    check_vjp(case, tolerance=1e-6, steps=(1e-3, 1e-5, 1e-7))


@settings(drawn(20), phases=[Phase.generate])  # a plan takes minutes to shrink
@given(plans, st.integers(0, 99))
def test_a_random_graph_has_the_gradient_that_differences_find(plan, seed):
    check(plan, seed)


@pytest.mark.sweep
@settings(drawn(1000), phases=[Phase.generate])
@given(plans, st.integers(0, 99))
def test_a_thousand_random_graphs_have_the_gradient_that_differences_find(plan, seed):
    check(plan, seed)


def through_the_canonical_form(plan: Sequence[tuple[Step, int, int, int]], seed: int) -> None:
    """The same, of the graph as it was, by ONNX Runtime, beside what `export` makes of it."""
    x = np.random.default_rng(seed).normal(size=[2, 2, 4, 4])
    model = Plan("", [x], outputs=2, dynamic=[], steps=plan).forward_model(ir.DataType.FLOAT)
    spell_out(model)
    proto = ir.to_proto(model)
    outputs = evaluator(in_float64(copy.deepcopy(proto))).run(None, {"x0": x})
    named = dict(zip((y.name for y in proto.graph.output), outputs, strict=True))
    verdict = judge(NodeTest("random", "", proto, None, {"x0": x}, named))
    kink = verdict.verdict == UNDECIDED and verdict.reason.endswith(KINK)
    assert kink or verdict.verdict == RIGHT, verdict


@settings(drawn(2), phases=[Phase.generate])
@given(plans, st.integers(0, 99))
def test_a_random_graph_keeps_its_gradient_in_the_canonical_form(plan, seed):
    through_the_canonical_form(plan, seed)


def test_a_graph_that_nothing_evaluates_is_not_taken_for_right(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("onnxplain.bench.node_tests.judge._originals", lambda test: iter(()))
    with pytest.raises(AssertionError, match="nothing evaluates"):
        through_the_canonical_form([(convolve, 0, 0, 0)], 0)


@pytest.mark.sweep
@settings(drawn(10000), phases=[Phase.generate])
@given(plans, st.integers(0, 99))
def test_ten_thousand_random_graphs_keep_their_gradient_in_the_canonical_form(plan, seed):
    through_the_canonical_form(plan, seed)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
def test_every_kind_of_step_alone_has_the_right_gradient(step: Step):
    """After a convolution, and before one, so that it stands in the middle of a network."""
    for seed in range(4):
        check([(convolve, 0, 0, seed), (step, 0, 1, seed), (convolve, 0, 0, seed)], seed)
