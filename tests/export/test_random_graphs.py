"""Operators of all kinds, put together at random, have the gradient that differences find."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from onnxplain.bench.node_tests.judge import KINK, RIGHT, UNDECIDED
from onnxplain.bench.random_graphs.__main__ import KINKED, Log, read
from onnxplain.bench.random_graphs.plans import NEWEST, OLDEST, Plan, at_opset, draw, judged
from onnxplain.bench.random_graphs.steps import STEPS, Step, bend, convolve
from onnxplain.export.composites import spell_out

from .vjps.check import check_vjp, drawn

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
    verdict, _ = judged(Plan("", [x], outputs=2, dynamic=[], steps=plan))
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


def test_a_graph_is_written_at_the_opset_nearest_to_that_asked_for():
    x = np.ones([2, 2, 4, 4])

    def written(step: Step, seed: int) -> list[int]:
        plan = Plan("", [x], outputs=2, dynamic=[0], steps=[(step, 0, 0, seed)])
        model = plan.forward_model(ir.DataType.FLOAT)
        spell_out(model)
        asked = (OLDEST, 18, NEWEST)
        return [at_opset(ir.to_proto(model), n).opset_import[0].version for n in asked]

    assert written(convolve, 0) == [OLDEST, 18, NEWEST]
    assert any(written(bend, seed) == [20, 20, NEWEST] for seed in range(9))  # Gelu


def test_drawn_graphs_of_any_opset_size_and_batch_are_right():
    log = Log()
    while log.graphs < 3:
        log.judge_next()
    assert sum(log.verdicts.get(kind, 0) for kind in (RIGHT, KINKED)) == log.graphs, log.others
    plans = [draw(np.random.default_rng(seed))[0] for seed in range(20)]
    drawn = {(plan.exported, plan.shapes()[0][0], len(plan.arrays()[0])) for plan in plans}
    assert drawn == {
        *((False, size, images) for size, images in ((2, 2), ("batch", 1), ("batch", 2))),
        *((True, "batch", images) for images in (1, 2)),
    }


def test_the_log_has_no_wrong_gradient():
    log = read()
    assert log.graphs >= 978
    assert log.others == []
    assert set(log.opsets) == {str(n) for n in range(OLDEST, NEWEST + 1)}
    assert set(log.steps) == {step.__name__ for step in STEPS}
    assert set(log.images) == {"1", "2"}
    assert set(log.ways) == {"differentiate", "export"}
