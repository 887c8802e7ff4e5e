"""The table as a whole."""

from __future__ import annotations

import pytest

from onnxplain.export import VJPS, register_vjp

from . import (
    test_activations,
    test_arithmetic,
    test_linear,
    test_normalisation,
    test_pooling,
    test_reductions,
    test_shaping,
)

KINDS = (
    test_activations,
    test_arithmetic,
    test_linear,
    test_normalisation,
    test_pooling,
    test_reductions,
    test_shaping,
)


def test_every_rule_has_a_test():
    covered = [operator for kind in KINDS for operator in kind.COVERED]
    assert sorted(covered) == sorted(VJPS)


def test_a_later_rule_replaces_an_earlier_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(VJPS, "Test", None)

    @register_vjp("Test")
    def rule(op, node, g):
        return g

    assert VJPS["Test"] is rule
